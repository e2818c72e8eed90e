"""The calls of operators that a network makes, found by running it without data."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from .. import _checks
from .calls import FILTERS, OPERATORS, Call, operator


def without_data(network: nn.Module) -> nn.Module:
    """Moves parameters and buffers to the meta device, but for filters."""
    for module in network.modules():
        filters = {name: value for name, value in module._buffers.items() if name.endswith("filter")}
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None and name not in filters:
                module._buffers[name] = value.to("meta")
    return network


def trace(network: nn.Module, prefix: str, run: Callable[[nn.Module], Any]) -> list[Call]:
    """The calls that ``run(network)`` makes, in order, for a network that :func:`without_data` emptied."""
    calls: list[Call] = []
    path: list[str] = []
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: path.pop() and None))
    try:
        with _recorded(calls, lambda: " ".join(filter(None, (prefix, path[-1] if path else "")))), torch.no_grad():
            run(network)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


@contextmanager
def _recorded(calls: list[Call], layer: Callable[[], str]) -> Iterator[None]:
    """Networks, and functions built of operators, see recording ones, which take filters with data beside x without."""
    replaced: list[tuple[Any, str, Any]] = []
    modules = [module for name, module in sys.modules.items() if name.startswith("ganops") and module]
    for op in OPERATORS:
        function = operator(op)
        recorder = _recorder(op, function, calls, layer)
        for module in modules:
            for name in [name for name, value in vars(module).items() if value is function]:
                replaced.append((module, name, function))
                setattr(module, name, recorder)
    try:
        with mock.patch.object(_checks, "same_device"):
            yield
    finally:
        for module, name, function in replaced:
            setattr(module, name, function)


def _recorder(op: str, function: Callable[..., Tensor], calls: list[Call], layer: Callable[[], str]) -> Any:
    signature = inspect.signature(function)

    def record(*args: Any, **kwargs: Any) -> Tensor:
        arguments = signature.bind(*args, **kwargs).arguments
        tensors = {k: v for k, v in arguments.items() if isinstance(v, Tensor) and k not in FILTERS}
        options = {k: v for k, v in arguments.items() if k not in tensors and v is not None}
        calls.append(Call(op, layer(), {k: tuple(v.shape) for k, v in tensors.items()}, options))
        return function(**{k: v.to("meta") if isinstance(v, Tensor) else v for k, v in arguments.items()})

    return record
