"""bias_act: public function, shapes and gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .._backend import autocast_dtype, call
from .._formats import memory_format
from ..reference import bias_act as reference
from ._library import Operator, register

Activation = tuple[str, float, float, float]  # act, alpha, gain, clamp

PIECEWISE_LINEAR = ("linear", "relu", "lrelu")
KERNEL_ORDERS = 2  # derivatives that kernels know; higher ones are composed of torch's own operators


def parse_activation(act: Any, alpha: Any, gain: Any, clamp: Any) -> Activation:
    """Checked arguments with the activation's defaults filled in; clamp -1 is off."""
    if act not in reference.ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(reference.ACTIVATIONS)}, got {act!r}")
    activation = reference.ACTIVATIONS[act]
    alpha = activation.alpha if alpha is None else _checks.number("alpha", alpha)
    gain = activation.gain if gain is None else _checks.number("gain", gain)
    return act, alpha, gain, _checks.clamp(clamp)


def for_dtype(activation: Activation, dtype: torch.dtype) -> Activation:
    """The same, with the clamp rounded to dtype: a clamped output then equals it, and the backward pass can tell."""
    act, alpha, gain, clamp = activation
    if clamp > 0:
        info = torch.finfo(dtype)
        step = info.eps * max(2.0 ** (math.frexp(clamp)[1] - 1), info.tiny)
        clamp = round(clamp / step) * step
        clamp = -1.0 if clamp > info.max else clamp
    return act, alpha, gain, clamp


def is_identity(activation: Activation) -> bool:
    act, _, gain, clamp = activation
    return act == "linear" and gain == 1 and clamp < 0


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Add a bias, apply an activation, scale, clamp: ``clamp(act(x + b) * gain, -clamp, clamp)`` in one pass.

    Args:
        x: any shape of rank >= 1; float16, bfloat16, float32 or float64. Computed in float32 (float64 for float64).
        b: bias of x's dtype and shape ``[x.shape[dim]]``, or None.
        dim: the dimension along which b is added; may be negative.
        act: "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish" or "gelu".
        alpha: slope of "lrelu" for negative values (default 0.2); other activations ignore it.
        gain: factor after the activation. Default: sqrt(2) for relu, lrelu and swish, else 1.
        clamp: bound of the result's magnitude, >= 0, or None for none.

    Returns:
        A tensor of x's shape, dtype and memory format. Differentiable to any order in x and b; the gradient is zero
        where the result was clamped. NaN stays NaN.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: bias and activation of Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020),
    appendix B; the gains keep the variance of a unit normal signal (He et al. 2015).
    """
    _checks.tensor("x", x)
    if x.ndim < 1:
        raise ValueError("x must have at least one dimension, got a scalar")
    dim = _checks.integer("dim", dim)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must be in [{-x.ndim}, {x.ndim - 1}] for x of shape {list(x.shape)}, got {dim}")
    dim %= x.ndim
    activation = for_dtype(parse_activation(act, alpha, gain, clamp), x.dtype)
    if b is not None:
        if autocast_dtype(x.device) and isinstance(b, Tensor):
            b = b.to(x.dtype)
        _checks.vector("b", b, x, x.shape[dim], f"x.shape[{dim}]")
    y: Tensor = call("bias_act", x, b, dim, *activation)
    return y


def _fake(x: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


def slope(dy: Tensor, kept: Tensor, b: Tensor | None, dim: int, activation: Activation, order: int) -> Tensor:
    """dy times the order-th slope at kept: by kernel where kernels reach, else by torch's own operators."""
    if order > KERNEL_ORDERS:
        return reference.bias_act_grad(dy, kept, b, dim, *activation, order)
    dx: Tensor = call("bias_act_grad", dy, kept, b, dim, *activation, order)
    return dx


def sum_to_bias(dx: Tensor, dim: int) -> Tensor:
    others = [i for i in range(dx.ndim) if i != dim]
    return dx.sum(others) if others else dx


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, b, ctx.dim, *activation = inputs
    act, alpha, _, clamp = ctx.activation = tuple(activation)
    is_linear = act == "linear" and clamp < 0
    keeps_y = reference.keeps(act, alpha) == "y"
    ctx.save_for_backward(None if is_linear else output if keeps_y else x, None if keeps_y else b)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    kept, b = ctx.saved_tensors
    gain = ctx.activation[2]
    dx = dy * gain if kept is None else slope(dy, kept, b, ctx.dim, ctx.activation, order=1)
    db = sum_to_bias(dx, ctx.dim) if ctx.needs_input_grad[1] else None
    return dx, db, None, None, None, None, None


def _grad_fake(dy: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(dy, memory_format=memory_format(dy))


def _grad_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, kept, b, ctx.dim, *activation, ctx.order = inputs
    ctx.activation = tuple(activation)
    ctx.save_for_backward(dy, kept, b)


def _grad_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    dy, kept, b = ctx.saved_tensors
    grad_dy = slope(g, kept, b, ctx.dim, ctx.activation, ctx.order) if ctx.needs_input_grad[0] else None
    grad_kept = grad_b = None
    if ctx.activation[0] not in PIECEWISE_LINEAR and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
        grad_kept = slope(g * dy, kept, b, ctx.dim, ctx.activation, ctx.order + 1)
        grad_b = sum_to_bias(grad_kept, ctx.dim) if ctx.needs_input_grad[2] else None
    return grad_dy, grad_kept, grad_b, None, None, None, None, None, None


_ACTIVATION = "int dim, str act, float alpha, float gain, float clamp"
register(
    Operator(
        "bias_act",
        f"(Tensor x, Tensor? b, {_ACTIVATION}) -> Tensor",
        reference.bias_act,
        _fake,
        _setup_context,
        _backward,
    )
)
register(
    Operator(
        "bias_act_grad",
        f"(Tensor dy, Tensor kept, Tensor? b, {_ACTIVATION}, int order) -> Tensor",
        reference.bias_act_grad,
        _grad_fake,
        _grad_setup_context,
        _grad_backward,
    )
)
