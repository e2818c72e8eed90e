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
