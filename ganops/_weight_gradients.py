"""Backward passes without the weights' gradients, which a penalty on the input's gradient does not need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._compile import constant_result
from ._setting import Setting

_disabled = Setting("weight_gradients_disabled", False)


@contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Skip the gradients of convolution weights in backward passes that run inside the ``with`` block.

    ``modulated_conv2d`` and ``adaptive_modulated_conv2d`` ask when the backward pass runs, not when the result is made.
    The weight's gradient is then None and costs nothing; all others, of any order, are exact (that of
    ``adaptive_modulated_conv2d``'s logits comes from the mixed weights' gradients, and costs these). A pass outside,
    even one through a gradient made inside, does differentiate by the weight::

        with ganops.no_weight_gradients():
            (g,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
        g.square().sum().backward()  # R1: reaches the weights

    It holds for this thread or asynchronous task; a compiled function keeps to what was in force when it was compiled.
    Before torch 2.13, backward passes of a GPU, which autograd runs on a thread of its own, do not see it.

    Args:
        disable: False does nothing, so that an option can be handed on.

    Raises:
        TypeError: disable is no bool.

    Source: R1 (Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018) and path length
    regularisation (Karras et al. 2020, section 3.2) differentiate by inputs first.
    """
    if not _checks.boolean("disable", disable):
        yield
        return
    with _disabled.use(True):
        yield


@constant_result
def weight_gradients_disabled() -> bool:
    """Whether :func:`no_weight_gradients` is in force."""
    return _disabled.get()


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Tensor | None:
        return None if weight_gradients_disabled() else dy[0]


def skippable(weight: Tensor) -> Tensor:
    """The weight, whose gradient ends here while weight gradients are disabled."""
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return weight
    result: Tensor = _Weight.apply(weight)  # type: ignore[no-untyped-call]
    return result
