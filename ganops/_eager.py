"""The short way to an operator: what torch's dispatcher comes to, where nothing but eager PyTorch takes part.

A gradient that is registered from Python costs every call a detour through Python, whether or not a gradient is wanted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


def shortened(
    op: torch._ops.OpOverload, setup_context: Callable[..., None] | None, backward: Callable[..., Any] | None
) -> Callable[..., Any]:
    """``op``, whose gradient is registered as torch.library takes it, by the shortest way that each call permits."""
    function = _differentiable(op, setup_context, backward) if setup_context and backward else None

    def run(*args: Any) -> Any:
        if _is_watched(args):
            return op(*args)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return function.apply(*args) if function else op(*args)  # type: ignore[no-untyped-call]
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return run


def _is_watched(args: tuple[Any, ...]) -> bool:
    """Whether torch.jit.trace, a mode or a tensor of another class wants to see the call.

    Modes and classes of ``__torch_dispatch__`` see what lies below autograd, on either way.
    """
    return bool(torch._C._is_tracing() or torch._C._has_torch_function(args))


def _differentiable(
    op: torch._ops.OpOverload, setup_context: Callable[..., None], backward: Callable[..., Any]
) -> type[Function]:
    def forward(ctx: FunctionCtx, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            result = op(*args)
        setup_context(ctx, args, result)
        return result

    name = f"{op.namespace}_{op._opname}"
    return type(name, (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})
