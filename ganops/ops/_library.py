"""Registers an operator with torch: schema, reference as the default kernel, shape function, gradient."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _backend, _eager
from .._formats import memory_format


class Operator(NamedTuple):
    name: str
    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    setup_context: Callable[..., None] | None = None
    backward: Callable[..., Any] | None = None  # None: called only where no gradient is needed


OPERATORS: list[Operator] = []  # those with compiled kernels
COMPOSED: list[Operator] = []  # parts of those above or of torch's own, called where they serve


def register(operator: Operator) -> None:
    OPERATORS.append(operator)
    _backend.add_reference(operator.name, operator.reference)
    _implement(operator, _backend.run_reference)


def register_composed(operator: Operator) -> None:
    COMPOSED.append(operator)
    _implement(operator, lambda function, x, *args: _backend.without_autocast(function, x.device, x, *args))


def _implement(operator: Operator, run: Callable[..., Any]) -> None:
    define(operator, "ganops")
    # A compiled kernel, registered before or after, overrides this on its device.
    torch.library.impl(f"ganops::{operator.name}", "default", functools.partial(run, operator.reference))


def define(operator: Operator, namespace: str) -> None:
    """Schema, shapes and gradient, without any kernel."""
    name = f"{namespace}::{operator.name}"
    torch.library.define(name, operator.schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(name, operator.fake)
    if operator.backward:
        torch.library.register_autograd(name, operator.backward, setup_context=operator.setup_context)
    op = getattr(getattr(torch.ops, namespace), operator.name).default
    _backend.add_operator(namespace, operator.name, _eager.shortened(op, operator.setup_context, operator.backward))


def new_image(x: Tensor, height: int, width: int) -> Tensor:
    size = (x.shape[0], x.shape[1], height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
