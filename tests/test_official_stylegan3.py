"""Our StyleGAN3 against NVIDIA's own classes, where GANOPS_STYLEGAN3 names a checkout of NVlabs/stylegan3.

Their operators run in their plain PyTorch form on a CPU.
"""

import copy
import inspect
import math
import os
import types
from collections.abc import Iterator

import pytest
import torch
from cases import relative_error
from official import constructor, official_modules, perturb

from ganops.cli.equivariance import NETWORKS, W_DIM
from ganops.models import metrics, stylegan3

CHECKOUT = os.environ.get("GANOPS_STYLEGAN3")
pytestmark = pytest.mark.skipif(CHECKOUT is None, reason="GANOPS_STYLEGAN3 names no checkout of NVlabs/stylegan3")

CONFIGS = {"T": {}, "R": stylegan3.CONFIG_R}
CLASSES = ("Generator", "MappingNetwork", "SynthesisNetwork", "SynthesisLayer", "SynthesisInput")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def official() -> Iterator[types.ModuleType]:
    with official_modules(CHECKOUT, "training.networks_stylegan3") as (module,):
        yield module


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_have_their_names_in_their_order(name: str, official: types.ModuleType) -> None:
    theirs = constructor(getattr(official, name))
    ours = inspect.signature(getattr(stylegan3, name).__init__).parameters
    assert list(ours) == list(theirs)
    for key in theirs.keys() - {"mapping_kwargs"}:
        assert ours[key].default == theirs[key].default


@pytest.mark.parametrize(("resolution", "c_dim"), [(64, 5), (256, 0)])
@pytest.mark.parametrize("config", CONFIGS)
def test_equal_outputs(config: str, resolution: int, c_dim: int, official: types.ModuleType) -> None:
    args, options = (512, c_dim, 512, resolution, 3), CONFIGS[config]
    theirs = official.Generator(*args, **options).eval().requires_grad_(False)
    perturb(theirs, seed=0, scale=0.1)
    ours = stylegan3.Generator(*args, **options).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict(), strict=True)

    generator = torch.Generator().manual_seed(1)
    z, c = (torch.randn(1, size, generator=generator) for size in (512, c_dim))
    expected = theirs(z, c, truncation_psi=0.7, truncation_cutoff=8)
    actual = ours(z, c, truncation_psi=0.7, truncation_cutoff=8)
    error = relative_error(actual, expected)
    print(f"StyleGAN3-{config} {resolution}: greatest difference / RMS {error:.1e}")
    assert error <= TOLERANCE

    perturb(ours, seed=2, scale=0.1)
    back = copy.deepcopy(theirs)
    back.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in back.state_dict().items())


@pytest.mark.parametrize("config", CONFIGS)
def test_equal_moving_averages(config: str, official: types.ModuleType) -> None:
    small = {**CONFIGS[config], "channel_base": 512, "channel_max": 16}
    theirs = official.Generator(16, 3, 24, 32, 3, **small)
    perturb(theirs, seed=0, scale=0.1)
    ours = stylegan3.Generator(16, 3, 24, 32, 3, **small)
    ours.load_state_dict(theirs.state_dict())
    z, c = torch.randn(3, 16), torch.randn(3, 3)
    for model in (theirs, ours):
        model(z, c, update_emas=True)
    for name, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_seed_makes_the_same_network(official: types.ModuleType) -> None:
    made = []
    for module in (official, stylegan3):
        torch.manual_seed(0)
        made.append(module.Generator(16, 3, 24, 32, 3, channel_base=512, channel_max=16).state_dict())
    assert list(made[0]) == list(made[1])
    for name, expected in made[0].items():
        torch.testing.assert_close(made[1][name], expected)


def decibels(errors: list[torch.Tensor]) -> float:
    return 10 * (4 / torch.cat([error.flatten() for error in errors]).square().mean()).log10().item()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_motions_give_like_metrics(name: str) -> None:
    """Their rotation and translation, by other filters, give nearly the same EQ-R and EQ-T_frac."""
    angle, x, y = 0.7, 0.05, -0.1
    torch.manual_seed(0)
    mapping, synthesis = NETWORKS[name](64)
    found: dict[str, list[torch.Tensor]] = {"r": [], "t": [], "their r": [], "their t": []}
    cosine, sine = math.cos(angle), math.sin(angle)
    back = {
        "r": torch.tensor([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]),
        "t": torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]]),
    }
    with official_modules(CHECKOUT, "metrics.equivariance") as (theirs,):
        for w in torch.split(mapping(torch.randn(4, W_DIM)), 1):
            images = {}
            for motion, transform in {"still": torch.eye(3), **back}.items():
                synthesis.input.transform.copy_(transform)
                images[motion] = synthesis(w)
            still, rotated, translated = images.values()

            (a, valid), (b, also_valid) = metrics.rotate(still, angle), metrics.rotate_spectrum(rotated, angle)
            found["r"].append((a - b)[:, :, valid & also_valid])
            a, valid = metrics.translate(still, x * 64, y * 64)
            found["t"].append((a - translated)[:, :, valid])
            # Their angles go the other way, and their masks are floats like the images.
            a, valid = theirs.apply_fractional_rotation(still, -angle)
            b, also_valid = theirs.apply_fractional_pseudo_rotation(rotated, -angle)
            found["their r"].append((a - b)[valid * also_valid > 0.5])
            a, valid = theirs.apply_fractional_translation(still, x, y)
            found["their t"].append((a - translated)[valid > 0.5])
    ratios = {key: decibels(errors) for key, errors in found.items()}
    print(name, {key: round(value, 1) for key, value in ratios.items()})
    for key in ("r", "t"):
        assert ratios[key] == pytest.approx(ratios[f"their {key}"], abs=3)
