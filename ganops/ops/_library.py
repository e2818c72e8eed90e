"""Registers an operator with torch: schema, reference as the default kernel, shape function, gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backend
from .._formats import memory_format


class Operator(NamedTuple):
    name: str
    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    setup_context: Callable[..., None]
    backward: Callable[..., Any]


OPERATORS: list[Operator] = []


def register(operator: Operator) -> None:
    OPERATORS.append(operator)
    _backend.add_reference(operator.name, operator.reference)
    define(operator, "ganops")

    def default(x: Tensor, *args: Any) -> Any:
        return _backend.run_reference(operator.reference, x, *args)

    # A compiled kernel, registered before or after, overrides this on its device.
    torch.library.impl(f"ganops::{operator.name}", "default", default)


def define(operator: Operator, namespace: str) -> None:
    """Schema, shapes and gradient, without any kernel."""
    name = f"{namespace}::{operator.name}"
    torch.library.define(name, operator.schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(name, operator.fake)
    torch.library.register_autograd(name, operator.backward, setup_context=operator.setup_context)


def new_image(x: Tensor, height: int, width: int) -> Tensor:
    size = (x.shape[0], x.shape[1], height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
