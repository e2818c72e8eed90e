"""Unmodified checkouts over ganops against themselves, on the CPU. GANOPS_STYLEGAN3 and so on name their folders."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

CLIENT = Path(__file__).parent / "compat_client.py"
KINDS = ("own", "ours")
SEEDS = 16
TOLERANCE = 1e-11


def checkout(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no checkout")
    return Path(os.environ[variable]).resolve()


def run(*command: object, cwd: Path | None = None, path: tuple[Path, ...] = ()) -> float:
    """The processor time of a Python process, in seconds."""
    places = [*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    arguments = [sys.executable, *map(str, command)]
    result = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def faster(what: str, own: float, ours: float) -> None:
    print(f"{what}: {own:.2f} s by its own operators, {ours:.2f} s over ganops, {own / ours:.1f} times faster")
    assert ours < own


@pytest.mark.parametrize(
    ("variable", "name"), [("GANOPS_STYLEGAN3", "gen_images.py"), ("GANOPS_STYLEGAN2_ADA", "generate.py")]
)
def test_generation_script(variable: str, name: str, tmp_path: Path) -> None:
    folder, network = checkout(variable), tmp_path / "net.pkl"
    run(CLIENT, "make", folder, network)
    # By itself, the script does not run on a CPU, nor beside today's setuptools.
    own = tmp_path / name
    own.write_text(re.sub(r"torch\.device\('cuda'\)", "torch.device('cpu')", (folder / name).read_text()))
    (tmp_path / "pkg_resources.py").write_text("from packaging.version import parse as parse_version\n")
    arguments = [f"--network={network}", f"--seeds=0-{SEEDS - 1}"]
    total = [
        run(own, *arguments, f"--outdir={tmp_path / 'own'}", path=(tmp_path, folder)),
        run("-m", "ganops", "run", name, *arguments, f"--outdir={tmp_path / 'ours'}", cwd=folder),
    ]
    pictures = [[np.asarray(PIL.Image.open(p)) for p in sorted((tmp_path / kind).glob("*.png"))] for kind in KINDS]
    assert len(pictures[0]) == len(pictures[1]) == SEEDS and min(p.std() for p in pictures[0]) > 5
    worst = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(*pictures, strict=True))
    print(f"\n{name}: {SEEDS} images of {pictures[0][0].shape}, greatest difference {worst} grey levels;", end=" ")
    print("whole runs {:.1f} s by its own operators, {:.1f} s over ganops".format(*total))
    assert worst <= 1
    run(CLIENT, "time", folder, network)
    times = np.load(network.with_suffix(".npz"))
    faster(f"{name}, an image", *(float(times[kind]) for kind in KINDS))


@pytest.mark.parametrize(
    ("variable", "task"),
    [("GANOPS_STYLEGAN3", "loss"), ("GANOPS_STYLEGAN2_ADA", "loss"), ("GANOPS_ROSINALITY", "model")],
)
def test_gradients(variable: str, task: str, tmp_path: Path) -> None:
    """Of every loss by every parameter, in float64."""
    folder = checkout(variable)
    run(CLIENT, task, folder, tmp_path / "own.npz")
    run(CLIENT, task, folder, tmp_path / "ours.npz", "--ganops")
    own, ours = (dict(np.load(tmp_path / name)) for name in ("own.npz", "ours.npz"))
    seconds = float(own.pop("seconds")), float(ours.pop("seconds"))
    assert own.keys() == ours.keys()
    sizes = {name: np.linalg.norm(value) for name, value in own.items()}
    errors = {name: np.linalg.norm(ours[name] - value) for name, value in own.items()}
    worst = max(errors[name] / sizes[name] if sizes[name] else errors[name] for name in sizes)
    print(f"\n{folder.name}, {task}: {len(own)} tensors, greatest relative difference {worst:.1e}")
    assert worst < TOLERANCE
    faster(f"{folder.name}, {task}", *seconds)
