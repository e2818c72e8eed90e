"""Equivariance and path lengths: exact motions, closed forms, and the networks' own figures."""

import math

import pytest
import torch
from networks import normal
from torch import nn

from ganops.__main__ import main
from ganops.cli.equivariance import NETWORKS, measure
from ganops.models.metrics import _two_grid_lowpass as two_grid_lowpass
from ganops.models.metrics import equivariance, perceptual_path_length, rotate, rotate_spectrum, translate
from ganops.models.stylegan3 import SynthesisInput

SIZE, W_DIM = 64, 4


class Waves(nn.Module):
    """An image of band-limited waves that follows its input exactly, up to an error of known size."""

    def __init__(self, bandwidth: float, error: float = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.input = SynthesisInput(W_DIM, 32, SIZE, SIZE, bandwidth).double()
        self.error, self.sign = error, 1

    def forward(self, w):
        self.sign = -self.sign
        return self.input(w)[:, :3] + self.sign * self.error / 2


def still():
    return torch.zeros(3, W_DIM, dtype=torch.float64)


def test_exact_motions_have_no_error():
    found = equivariance(Waves(bandwidth=8), still(), torch.Generator().manual_seed(0))
    assert found.eq_t > 250
    assert found.eq_t_frac > 50  # what Lanczos's filter makes of such waves
    assert found.eq_r > 90
    # Rotation keeps frequencies up to the filters' transition bands.
    assert equivariance(Waves(bandwidth=24), still(), torch.Generator().manual_seed(0)).eq_r > 90


def test_a_known_error():
    """Every second image is brighter by 0.01: of each pair of images, one or both; 10 log10(4 / 0.01^2) = 46 dB."""
    found = equivariance(Waves(bandwidth=4, error=0.01), still(), torch.Generator().manual_seed(0))
    assert found.eq_t == pytest.approx(10 * math.log10(4 / 0.01**2), abs=1e-6)


def test_the_input_is_restored():
    network = Waves(bandwidth=8)
    network.input.transform.copy_(torch.eye(3) * 2)
    equivariance(network, still()[:1])
    assert torch.equal(network.input.transform, torch.eye(3, dtype=torch.float64) * 2)


def test_a_stuck_image_is_not_equivariant():
    class Stuck(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.image = SynthesisInput(W_DIM, 4, 4, 4, 1), normal(1, 3, SIZE, SIZE)

        def forward(self, w):
            return self.image

    found = equivariance(Stuck(), still(), torch.Generator().manual_seed(0))
    assert max(found) < 10


@pytest.mark.parametrize(("x", "y"), [(3, -2), (0, 0), (-7, 5)])
def test_translation_by_whole_pixels(x, y):
    image = normal(2, 3, 20, 24)
    moved, valid = translate(image, x, y)
    torch.testing.assert_close(moved[:, :, valid], image.roll((y, x), dims=(2, 3))[:, :, valid])
    assert valid.sum() == (20 - abs(y)) * (24 - abs(x))


@pytest.mark.parametrize(("x", "y"), [(0.25, 0), (-3.5, 2.75), (1.0, 0.1)])
def test_translation_by_fractions(x, y):
    """A ramp is moved, but for the filter's ripple; valid pixels do not depend on what surrounds the image."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    ramp = (0.5 * rows + columns).double()[None, None]
    moved, valid = translate(ramp, x, y)
    expected = ramp - x - 0.5 * y
    torch.testing.assert_close(moved[:, :, valid], expected[:, :, valid], rtol=0, atol=0.05)
    assert valid.any() and not valid.all()
    inner, inner_valid = translate(ramp[:, :, 2:-2, 3:-3], x, y)
    torch.testing.assert_close(inner[:, :, inner_valid], moved[:, :, 2:-2, 3:-3][:, :, inner_valid])


@pytest.mark.parametrize("quarter_turns", [-1, 1, 2])
def test_rotation_by_quarter_turns(quarter_turns):
    """From the x axis, to the right, towards the y axis, down: clockwise on the screen."""
    image = normal(1, 2, SIZE, SIZE)
    angle = quarter_turns * math.pi / 2
    rotated, valid = rotate(image, angle)
    filtered, also_valid = rotate_spectrum(torch.rot90(image, -quarter_turns, dims=(2, 3)), angle)
    valid &= also_valid
    assert valid.sum() > 900
    torch.testing.assert_close(rotated[:, :, valid], filtered[:, :, valid], rtol=0, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.2])
def test_pass_band_is_what_both_grids_carry(angle):
    axis = torch.arange(-31, 32, dtype=torch.float64) / 2
    kernel = two_grid_lowpass(axis, axis[:, None], angle) / 4  # two samples a pixel: one period is [-1, 1]
    cosine, sine = math.cos(angle), math.sin(angle)
    frequencies = torch.linspace(-0.9, 0.9, 19)
    for fx, fy in torch.cartesian_prod(frequencies, frequencies).tolist():
        # Distance to the nearest edge of either square, positive inside.
        margin = 0.5 - max(abs(fx), abs(fy), abs(cosine * fx + sine * fy), abs(cosine * fy - sine * fx))
        response = (kernel * torch.cos(2 * math.pi * (fx * axis + fy * axis[:, None]))).sum().item()
        if margin > 0.1:
            assert response == pytest.approx(1, abs=1e-3)
        if margin < -0.1:
            assert response == pytest.approx(0, abs=1e-3)


def squared_distance(a, b):
    return (a - b).square().sum(dim=1)


def test_path_length_of_a_linear_network():
    z, matrix, mapping = normal(10, 5), normal(5, 7), normal(5, 5)
    w = z @ mapping
    expected = ((w[5:] - w[:5]) @ matrix).square().sum(dim=1).mean().item()
    options = {"trim": 0, "batch": 2, "epsilon": 1e-3}
    for sampling in ("full", "end"):
        found = perceptual_path_length(
            lambda z: z @ mapping, lambda w: w @ matrix, squared_distance, z, sampling=sampling, **options
        )
        assert found == pytest.approx(expected, rel=1e-6)


def test_path_length_on_the_sphere():
    """With images that are the latents, the length of a great circle is the angle between its ends."""
    z = normal(6, 5)
    unit = z / z.norm(dim=1, keepdim=True)
    expected = (unit[:3] * unit[3:]).sum(dim=1).acos().square()
    found = perceptual_path_length(lambda z: z, lambda w: w, squared_distance, z, space="z", trim=0, batch=3)
    assert found == pytest.approx(expected.mean().item(), rel=1e-5)


def test_path_lengths_are_trimmed():
    z = torch.cat([torch.zeros(101, 1), torch.ones(101, 1)]).double()
    z[-1] = 1000
    found = perceptual_path_length(lambda z: z, lambda w: w, squared_distance, z, batch=50)
    assert found == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("z must be \\[2 \\* pairs, D\\]", {"z": torch.zeros(3, 2)}),
        ("space must be one of w, z, got 'x'", {"space": "x"}),
        ("sampling must be full or end", {"sampling": "start"}),
        ("epsilon must be positive, got 0", {"epsilon": 0}),
        ("trim must be in", {"trim": 0.5}),
        ("batch must be at least 1", {"batch": 0}),
    ],
)
def test_bad_arguments_of_path_length(message, options):
    with pytest.raises(ValueError, match=message):
        perceptual_path_length(lambda z: z, lambda w: w, squared_distance, **{"z": torch.zeros(2, 2), **options})


def test_bad_arguments_of_equivariance():
    with pytest.raises(ValueError, match="ws must hold at least one sample"):
        equivariance(Waves(8), still()[:0])
    with pytest.raises(ValueError, match="less than the image's \\[24, 20\\] pixels, got 24"):
        translate(normal(1, 1, 20, 24), 24, 0)


@pytest.mark.slow
def test_untrained_networks():
    found = {name: measure(name, resolution=64, samples=8, seed=1)[0] for name in NETWORKS}
    assert found["StyleGAN3-T"].eq_t > 60
    assert found["StyleGAN3-R"].eq_r > 70
    assert max(found["StyleGAN2, Fourier input"]) < 25


def test_command(tmp_path, capsys):
    path = tmp_path / "plot.png"
    assert main(["equivariance", "--samples", "1", "--out", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    assert all(f"\n{name} " in text for name in NETWORKS)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("--resolution: expected a power of two", ["--resolution", "96"]),
        ("--samples: expected at least 1", ["--samples", "0"]),
        ("--out: folder", ["--out", "/no/such/folder/plot.png"]),
    ],
)
def test_command_refuses_bad_arguments(message, options, capsys):
    assert main(["equivariance", *options]) == 2
    assert message in capsys.readouterr().err
