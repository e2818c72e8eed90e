"""Our StyleGAN2 against NVIDIA's own classes, where the environment names a checkout of one of their repositories.

GANOPS_STYLEGAN2_ADA is NVlabs/stylegan2-ada-pytorch, GANOPS_STYLEGAN3 NVlabs/stylegan3. Their operators run in their
plain PyTorch form on a CPU.
"""

import copy
import inspect
import os
import types
from collections.abc import Iterator

import pytest
import torch
from cases import relative_error
from official import SAMPLES_TOLERANCE, STYLEGAN2_SAMPLES, constructor, official_modules, perturb, stylegan2_samples

from ganops.models import losses, stylegan2

NETWORKS = {"GANOPS_STYLEGAN2_ADA": "training.networks", "GANOPS_STYLEGAN3": "training.networks_stylegan2"}
CHECKOUTS = [variable for variable in NETWORKS if variable in os.environ]
pytestmark = pytest.mark.skipif(not CHECKOUTS, reason=f"needs one of {', '.join(NETWORKS)} in the environment")

CLASSES = (
    "MappingNetwork",
    "SynthesisNetwork",
    "SynthesisBlock",
    "SynthesisLayer",
    "ToRGBLayer",
    "Conv2dLayer",
    "Discriminator",
    "DiscriminatorBlock",
    "DiscriminatorEpilogue",
    "MinibatchStdLayer",
)
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=CHECKOUTS)
def official(request: pytest.FixtureRequest) -> Iterator[types.ModuleType]:
    with official_modules(os.environ[request.param], NETWORKS[request.param]) as (module,):
        module.is_older = request.param == "GANOPS_STYLEGAN2_ADA"
        yield module


def synthesis_options(official: types.ModuleType, **options: object) -> dict[str, object]:
    """The older Generator takes them as a dict."""
    return {"synthesis_kwargs": options} if official.is_older else options


def loaded(theirs: torch.nn.Module, ours: torch.nn.Module, scale: float = 0.3) -> None:
    """Gives both the same weights, and checks that a state_dict goes both ways."""
    perturb(ours, seed=2, scale=scale)
    back = copy.deepcopy(theirs)
    back.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in back.state_dict().items())
    perturb(theirs, seed=0, scale=scale)
    ours.load_state_dict(theirs.state_dict(), strict=True)


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_have_their_names_in_their_order(name: str, official: types.ModuleType) -> None:
    theirs = constructor(getattr(official, name))
    ours = list(inspect.signature(getattr(stylegan2, name).__init__).parameters)
    assert [argument for argument in ours if argument in theirs] == list(theirs)
    generator = constructor(official.Generator)
    assert list(inspect.signature(stylegan2.Generator.__init__).parameters)[:7] == list(generator)[:7]


@pytest.mark.parametrize("c_dim", [0, 5])
@pytest.mark.parametrize("resolution", [64, 256])
def test_generator(resolution: int, c_dim: int, official: types.ModuleType) -> None:
    """Full size: config F, 512 channels."""
    options = synthesis_options(official, num_fp16_res=0, conv_clamp=256)
    theirs = official.Generator(512, c_dim, 512, resolution, 3, **options).eval().requires_grad_(False)
    ours = stylegan2.Generator(512, c_dim, 512, resolution, 3, **options).eval().requires_grad_(False)
    loaded(theirs, ours, scale=0.1)
    generator = torch.Generator().manual_seed(1)
    z, c = (torch.randn(2, size, generator=generator) for size in (512, c_dim))
    for options in ({}, {"truncation_psi": 0.7, "truncation_cutoff": 8}):
        expected = theirs(z, c, noise_mode="const", **options)
        error = relative_error(ours(z, c, noise_mode="const", **options), expected)
        print(f"generator {resolution}, c_dim {c_dim}, {options}: greatest difference / RMS {error:.1e}")
        assert error <= TOLERANCE


@pytest.mark.parametrize("c_dim", [0, 5])
@pytest.mark.parametrize("resolution", [64, 256])
def test_discriminator(resolution: int, c_dim: int, official: types.ModuleType) -> None:
    args = {"c_dim": c_dim, "img_resolution": resolution, "img_channels": 3, "num_fp16_res": 0, "conv_clamp": 256}
    theirs = official.Discriminator(**args).requires_grad_(False)
    ours = stylegan2.Discriminator(**args).requires_grad_(False)
    loaded(theirs, ours, scale=0.1)
    generator = torch.Generator().manual_seed(1)
    img = torch.randn(4, 3, resolution, resolution, generator=generator)
    c = torch.randn(4, c_dim, generator=generator)
    error = relative_error(ours(img, c), theirs(img, c))
    print(f"discriminator {resolution}, c_dim {c_dim}: greatest difference / RMS {error:.1e}")
    assert error <= TOLERANCE


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_architectures(architecture: str, c_dim: int, official: types.ModuleType) -> None:
    shared = {"architecture": architecture, "channel_base": 512, "channel_max": 32, "num_fp16_res": 0}
    args = {"z_dim": 24, "c_dim": c_dim, "w_dim": 16, "img_resolution": 16, "img_channels": 3}
    args |= synthesis_options(official, conv_clamp=2, **shared)
    theirs, ours = official.Generator(**args).eval(), stylegan2.Generator(**args).eval()
    loaded(theirs, ours)
    z, c = torch.randn(3, 24), torch.randn(3, c_dim)
    for mode in ("const", "none"):
        expected = theirs(z, c, noise_mode=mode)
        assert relative_error(ours(z, c, noise_mode=mode), expected) <= TOLERANCE

    epilogue = {"mbstd_group_size": 3, "mbstd_num_channels": 2}
    args = {"c_dim": c_dim, "img_resolution": 16, "img_channels": 3, **shared, "epilogue_kwargs": epilogue}
    theirs, ours = official.Discriminator(**args), stylegan2.Discriminator(**args)
    loaded(theirs, ours)
    img, c = torch.randn(6, 3, 16, 16), torch.randn(6, c_dim)
    assert relative_error(ours(img, c), theirs(img, c)) <= TOLERANCE


@pytest.mark.parametrize("architecture", STYLEGAN2_SAMPLES)
def test_recorded_samples(architecture: str, official: types.ModuleType) -> None:
    samples = stylegan2_samples(official, architecture, as_dict=official.is_older)
    assert samples == pytest.approx(STYLEGAN2_SAMPLES[architecture], rel=SAMPLES_TOLERANCE, abs=SAMPLES_TOLERANCE)


def test_random_noise(official: types.ModuleType) -> None:
    args = {"z_dim": 24, "c_dim": 0, "w_dim": 16, "img_resolution": 16, "img_channels": 3}
    args |= synthesis_options(official, channel_base=512, channel_max=32, num_fp16_res=0, conv_clamp=256)
    theirs, ours = official.Generator(**args).eval(), stylegan2.Generator(**args).eval()
    loaded(theirs, ours)
    images = []
    for model in (theirs, ours):
        torch.manual_seed(0)
        images.append(model(torch.randn(3, 24), None))
    assert relative_error(images[1], images[0]) <= TOLERANCE


def test_moving_average(official: types.ModuleType) -> None:
    args = {"z_dim": 24, "c_dim": 3, "w_dim": 16, "num_ws": 4, "num_layers": 2, "embed_features": 8, "w_avg_beta": 0.9}
    theirs, ours = official.MappingNetwork(**args).train(), stylegan2.MappingNetwork(**args).train()
    loaded(theirs, ours)
    z, c = torch.randn(3, 24), torch.randn(3, 3)
    options = {"skip_w_avg_update": False} if official.is_older else {"update_emas": True}
    for model in (theirs, ours):
        model(z, c, **options)
    torch.testing.assert_close(ours.w_avg, theirs.w_avg)


@pytest.mark.parametrize("frozen", [0, 2, 5])
def test_frozen_layers(frozen: int, official: types.ModuleType) -> None:
    args = {"c_dim": 0, "img_resolution": 16, "img_channels": 3, "channel_base": 512, "channel_max": 32}
    args["block_kwargs"] = {"freeze_layers": frozen}
    theirs, ours = official.Discriminator(**args), stylegan2.Discriminator(**args)
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in theirs.named_parameters()}


def test_a_seed_makes_the_same_networks(official: types.ModuleType) -> None:
    args = {"img_resolution": 16, "img_channels": 3, "c_dim": 3}
    small = {"channel_base": 512, "channel_max": 32, "architecture": "resnet"}
    for name, options in (
        ("Generator", {"z_dim": 16, "w_dim": 24, **synthesis_options(official, **small)}),
        ("Discriminator", small),
    ):
        states = []
        for module in (official, stylegan2):
            torch.manual_seed(0)
            states.append(getattr(module, name)(**args, **options).state_dict())
        assert list(states[0]) == list(states[1])
        for key, expected in states[0].items():
            torch.testing.assert_close(states[1][key], expected, msg=key)


@pytest.mark.skipif("GANOPS_STYLEGAN3" not in os.environ, reason="needs GANOPS_STYLEGAN3 in the environment")
def test_losses() -> None:
    """The gradients that their training accumulates in each phase."""
    small = {"channel_base": 512, "channel_max": 32, "num_fp16_res": 0}
    g, d = stylegan2.Generator(16, 0, 24, 16, 3, **small), stylegan2.Discriminator(0, 16, 3, **small)
    real, z, c = torch.randn(4, 3, 16, 16), torch.randn(4, 16), torch.zeros(4, 0)

    def path_length_loss() -> torch.Tensor:
        ws = g.mapping(z)
        images = g.synthesis(ws)
        return losses.PathLengthPenalty(weight=2, decay=0.01)(images, ws)

    def r1_loss() -> torch.Tensor:
        images = real.clone().requires_grad_()
        return losses.r1_penalty(d(images), images, gamma=10)

    phases = {
        "Gmain": (g, lambda: losses.nonsaturating_generator_loss(d(g(z)))),
        "Greg": (g, path_length_loss),
        "Dmain": (d, lambda: losses.logistic_discriminator_loss(fake_logits=d(g(z)), real_logits=d(real))),
        "Dreg": (d, r1_loss),
    }
    with official_modules(os.environ["GANOPS_STYLEGAN3"], "training.networks_stylegan2", "training.loss") as (
        networks,
        loss,
    ):
        theirs = {g: networks.Generator(16, 0, 24, 16, 3, **small), d: networks.Discriminator(0, 16, 3, **small)}
        for ours, network in theirs.items():
            loaded(network, ours)
        training = loss.StyleGAN2Loss("cpu", *theirs.values(), r1_gamma=10, pl_weight=2, pl_batch_shrink=1)
        for phase, (trained, value) in phases.items():
            for network in theirs.values():
                network.requires_grad_(network is theirs[trained]).zero_grad(set_to_none=True)
            torch.manual_seed(5)
            training.accumulate_gradients(phase, real, c, z, c, gain=1, cur_nimg=0)
            expected = {name: p.grad for name, p in theirs[trained].named_parameters() if p.grad is not None}
            names, parameters = zip(*trained.named_parameters(), strict=True)
            torch.manual_seed(5)
            gradients = torch.autograd.grad(value(), parameters, materialize_grads=True)
            actual = dict(zip(names, gradients, strict=True))
            flat = [torch.cat([each[name].flatten() for name in expected]) for each in (actual, expected)]
            error = relative_error(*flat)
            print(f"{phase}: greatest difference / RMS {error:.1e}")
            assert error <= 1e-4
