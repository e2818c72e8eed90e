"""Networks of official checkouts, as oracles. Nothing of theirs is copied: they are imported and called."""

import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import packaging.version
import torch


@contextmanager
def official_modules(checkout: str, *names: str) -> Iterator[list[types.ModuleType]]:
    """These modules of a checkout, for a while; what they import and never call here need not be installed."""
    before = dict(sys.modules)
    requests, pkg_resources = types.ModuleType("requests"), types.ModuleType("pkg_resources")
    pkg_resources.parse_version = packaging.version.parse
    sys.modules.update(requests=requests, pkg_resources=pkg_resources)
    sys.path.insert(0, checkout)
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(checkout)
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]


def constructor(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of an official class, which a decorator hides."""
    return dict(inspect.signature(cls.__mro__[1].__init__).parameters)


def perturb(model: torch.nn.Module, seed: int, scale: float) -> None:
    """Moves every parameter and buffer but the filters, so that none is at an initial value that hides it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "filter" not in name:
                value.add_(torch.randn(value.shape, generator=generator) * scale)


# Three values of an image and three scores that the official classes gave; both repositories gave the same.
STYLEGAN2_SAMPLES = {
    "skip": [0.866211, -1.94339, 0.242877, -7.50048, -6.93606, -3.00054],
    "resnet": [-0.72536, -0.274679, 1.91843, -0.705974, -0.0182381, 0.426259],
    "orig": [-0.394323, -3, 1.59828, -0.143409, 0.144835, -1.68806],
}
SAMPLES_TOLERANCE = 1e-4


def stylegan2_samples(module: types.ModuleType, architecture: str, as_dict: bool = False) -> list[float]:
    """These values of a module's generator and discriminator, small and conditional, with all parameters moved."""
    small = {"channel_base": 256, "channel_max": 12, "architecture": architecture, "num_fp16_res": 0, "conv_clamp": 3}
    torch.manual_seed(0)
    options = {"synthesis_kwargs": small} if as_dict else small
    generator = module.Generator(8, 3, 10, 16, 3, **options).eval().requires_grad_(False)
    discriminator = module.Discriminator(3, 16, 3, **small).requires_grad_(False)
    for network in (generator, discriminator):
        perturb(network, seed=0, scale=0.5)
    z, c = torch.randn(3, 8), torch.randn(3, 3)
    image = generator(z, c, truncation_psi=0.7, truncation_cutoff=3, noise_mode="const")
    return [*image[1, :, 3, 5].tolist(), *discriminator(image, c).flatten().tolist()]
