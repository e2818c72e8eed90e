"""MobileStyleGAN with its trained weights against the openvino runtime, and the command that draws faces."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

import ganops
from ganops.__main__ import main
from ganops.cli import CommandError, faces
from ganops.models import MobileStyleGAN
from ganops.models.mobile_stylegan import WEIGHTS_HINT, find_weights, inverse_haar

PSI = 0.7
SAVED_FACE = Path(__file__).parent / "data" / "face_seed0_psi0.7_64px.png"
IMAGE_RANGE = 2.0
TOLERANCE = 1e-3 * IMAGE_RANGE


def need(present, what):
    """Continuous integration must have everything; elsewhere a missing part skips the test."""
    if not present:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


def command(*args, **kwargs):
    """Run Python on the package that is tested here, from any folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ganops.__file__).parents[1])}
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, env=environment, **kwargs)


def pixels(path_or_picture):
    if isinstance(path_or_picture, (str, Path)):
        path_or_picture = PIL.Image.open(path_or_picture)
    return np.asarray(path_or_picture).astype(int)


def largest(a, b):
    return float((a - b).abs().max())


@pytest.fixture(scope="module")
def weights():
    need(find_spec("random_face"), f"MobileStyleGAN's weights: {WEIGHTS_HINT}")
    return find_weights()


@pytest.fixture(scope="module")
def model(weights):
    return MobileStyleGAN.from_pretrained()


@pytest.fixture(scope="module")
def images(model):
    """Seeds 0 and 1."""
    return faces.draw(model, [0, 1], PSI)


@pytest.fixture(scope="module")
def small_model():
    """Untrained and tiny, in float64: 16x16 images."""
    torch.manual_seed(0)
    model = MobileStyleGAN(style_dim=5, mapping_layers=2, channels=(8, 8)).double()
    for value in model.state_dict().values():
        value.copy_(0.5 * torch.randn_like(value))
    return model


def test_agrees_with_openvino(model, images, weights, tmp_path):
    need(find_spec("openvino"), "the openvino runtime: pip install openvino")
    z = torch.cat([torch.randn(1, 512, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, z=z.numpy(), w_avg=model.mapping.w_avg.numpy(), psi=PSI)
    # Some machines report instructions that they cannot run; this limits the runtime to those of AVX-512 VNNI.
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", **os.environ}
    script = Path(__file__).parent / "openvino_faces.py"
    child = subprocess.run(
        [sys.executable, script, weights, source, target], capture_output=True, text=True, env=environment
    )
    assert child.returncode == 0, f"openvino ended with {child.returncode}:\n{child.stderr}"
    expected = {name: torch.from_numpy(value) for name, value in np.load(target).items()}

    w_error, error = largest(model.mapping(z), expected["w"]), largest(images, expected["images"])
    print(f"largest difference from openvino: w {w_error:.1e}, image {error:.1e} of range {IMAGE_RANGE}")
    assert w_error < 1e-4
    assert error < TOLERANCE
    assert expected["images"].std() > 0.3
    small = faces.to_pictures(expected["images"][:1], 64)[0]
    assert abs(pixels(small) - pixels(SAVED_FACE)).max() <= 1


def test_saved_face(images):
    assert abs(pixels(faces.to_pictures(images[:1], 64)[0]) - pixels(SAVED_FACE)).max() <= 1


def test_reference_draws_the_same(model, images):
    with ganops.backend("reference"):
        assert largest(faces.draw(model, [0], PSI), images[:1]) < TOLERANCE


def test_batch_does_not_matter(model, images):
    assert largest(faces.draw(model, [1], PSI), images[1:]) < TOLERANCE


def test_mean_latent_is_fixed(model, weights):
    again = MobileStyleGAN.from_pretrained(weights)
    assert torch.equal(again.mapping.w_avg, model.mapping.w_avg)
    z = torch.randn(4096, 512, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.mapping(z).mean(0), model.mapping.w_avg, atol=1e-5, rtol=0)


def test_truncation(small_model):
    z = torch.randn(3, 5, dtype=torch.float64)
    w, w_avg = small_model.mapping(z), small_model.mapping.w_avg
    torch.testing.assert_close(small_model.mapping(z, 0.3), w_avg + 0.3 * (w - w_avg))
    torch.testing.assert_close(small_model.mapping(z, 0.0), w_avg.expand(3, -1))
    torch.testing.assert_close(small_model(z, 0.3), small_model.synthesis(small_model.mapping(z, 0.3)))
    torch.testing.assert_close(small_model.mapping(7 * z), w)


def test_inverse_haar_is_the_transposed_transform():
    low, high = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    bands = [torch.outer(low, low), torch.outer(high, low), torch.outer(low, high), torch.outer(high, high)]
    kernel = torch.stack(bands).double()[:, None]
    x = torch.randn(2, 12, 5, 3, dtype=torch.float64)
    expected = [
        F.conv_transpose2d(torch.stack([x[:, c], *x[:, 3 + 3 * c : 6 + 3 * c].unbind(1)], 1), kernel, stride=2)
        for c in range(3)
    ]
    torch.testing.assert_close(inverse_haar(x), torch.cat(expected, 1))
    channels_last = inverse_haar(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, torch.cat(expected, 1))


def test_gradients_reach_the_latent(small_model):
    w = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    directions = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    project = lambda w: (small_model.synthesis(w) * directions).sum([1, 2, 3])  # noqa: E731
    assert torch.autograd.gradcheck(project, w)
    assert torch.autograd.gradgradcheck(project, w)


def test_empty_batch(small_model):
    assert small_model(torch.zeros(0, 5, dtype=torch.float64)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("part", ["mapping", "synthesis"])
@pytest.mark.parametrize("shape", [(5,), (2, 4), (1, 5, 1)])
def test_bad_latent(small_model, part, shape):
    with pytest.raises(ValueError, match=rf"^[zw] must be \[N, 5\], got \[{shape[0]}"):
        getattr(small_model, part)(torch.zeros(shape, dtype=torch.float64))


@pytest.fixture
def damaged(weights, tmp_path):
    """A folder of links to the weights, where files can be replaced."""
    for file in weights.iterdir():
        (tmp_path / file.name).symlink_to(file)

    def replace(name, data):
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(data)
        return tmp_path

    return replace


def test_truncated_weights(weights, damaged):
    data = (weights / "SynthesisNetwork.bin").read_bytes()
    folder = damaged("SynthesisNetwork.bin", data[:-1])
    with pytest.raises(ValueError, match="is it truncated"):
        MobileStyleGAN.from_pretrained(folder)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("m.layers.3.conv1.bias", "m.layers.3.conv1.shift", r"missing: \['synthesis.layers.3.conv1.bias'\], not known"),
        ("m.input.input", "input", "'m.input.input'"),
        ('shape="64, 512"', 'shape="512, 64"', r"has shape \[512, 64\], expected \[64, 512\]"),
    ],
)
def test_foreign_weights(weights, damaged, old, new, text):
    graph = (weights / "SynthesisNetwork.xml").read_text()
    assert old in graph
    folder = damaged("SynthesisNetwork.xml", graph.replace(old, new).encode())
    with pytest.raises(ValueError, match=text):
        MobileStyleGAN.from_pretrained(folder)


def test_command_draws_one_face(images, tmp_path):
    done = command("-m", "ganops", "faces", "--seeds", "0", "--truncation", PSI, "--out", "a.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert abs(pixels(tmp_path / "a.png") - pixels(faces.to_pictures(images[:1], 1024)[0])).max() <= 1
    assert done.stdout.startswith("a.png: 1 face in ") and "images/s on cpu" in done.stdout
    assert done.stdout.count("\n") == 1 and "1/1" in done.stderr
    assert os.listdir(tmp_path) == ["a.png"]


def test_command_draws_a_grid_and_files(weights, tmp_path, capsys):
    out, one_each = tmp_path / "grid.png", tmp_path / "face{seed}.png"
    assert main(["faces", "--seeds", "0,3", "--batch", "2", "--size", "64", "--out", str(out)]) == 0
    assert main(["faces", "--seeds", "0,3", "--backend", "reference", "--size", "64", "--out", str(one_each)]) == 0
    grid, saved = pixels(out), pixels(SAVED_FACE)
    assert grid.shape == (64, 128, 3)
    assert abs(grid[:, :64] - saved).max() <= 1
    assert abs(grid[:, :64] - pixels(tmp_path / "face0.png")).max() <= 1
    assert abs(grid[:, 64:] - pixels(tmp_path / "face3.png")).max() <= 1
    assert "plain PyTorch (reference)" in capsys.readouterr().out


def test_weights_package_is_not_imported(weights, tmp_path):
    code = (
        "import sys; from ganops.__main__ import main; "
        "status = main(['faces', '--seeds', '1', '--size', '8']); sys.exit(status or 'random_face' in sys.modules)"
    )
    done = command("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("--seeds 7-3", "growing range"),
        ("--seeds 1,,2", "'' is neither a seed nor a range"),
        ("--seeds=-1", "'-1' is neither"),
        ("--seeds 0-9223372036854775808", "up to 9223372036854775807"),
        ("--seeds 0-99999999", "100000000 seeds, expected at most"),
        ("--truncation nan", "finite number, got 'nan'"),
        ("--truncation much", "finite number, got 'much'"),
        ("--batch 0", "positive integer, got '0'"),
        ("--size 1.5", "positive integer, got '1.5'"),
        ("--size 1025", "at most 1024, got 1025"),
        ("--out faces.jpg", "ends in .png, got 'faces.jpg'"),
        ("--out nowhere/faces.png", "folder 'nowhere' does not exist"),
        ("--out folder.png", "'folder.png' is a folder"),
        ("--seeds 0-64", "at most 64 faces of 1024 pixels, got 65"),
        ("--device tpu", "--device"),
        ("--colour red", "--colour"),
    ],
)
def test_bad_argument(tmp_path, monkeypatch, capsys, args, text):
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    try:
        status = main(["faces", *args.split()])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2 and captured.out == ""
    assert text in captured.err and captured.err.count("\n") == 1


def test_no_command_is_one_line():
    done = command("-m", "ganops")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "command" in done.stderr


def test_missing_weights_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["faces", "--weights", "nowhere"]) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["faces"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.endswith("pip install --no-deps random-face") for line in lines)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    def half(self, path, format):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(PIL.Image.Image, "save", half)
    with pytest.raises(CommandError, match=r"cannot write .*a\.png: No space left on device"):
        faces.save_png(PIL.Image.new("RGB", (2, 2)), path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_parse_seeds():
    assert faces.parse_seeds("1,5,9-12") == [1, 5, 9, 10, 11, 12]
    assert faces.parse_seeds("9223372036854775807") == [2**63 - 1]


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 5), (6, 3), (7, 3), (8, 4), (9, 3), (11, 4)]
)
def test_grid_columns(count, columns):
    assert faces.grid_columns(count) == columns
