"""bias_act: bias, activation, gain and clamp; and the slopes of each activation."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717

Slope = Callable[[Tensor, float], Tensor]


class Activation(NamedTuple):
    """One activation a(u).

    ``slopes`` are the first, second and third derivative, each a function of (v, alpha), where v is what the backward
    pass keeps. If ``keeps`` is "u", v is a's argument and the slopes are a', a'', a'''. If ``keeps`` is "y", v is a's
    value t = a(u) and the slopes are s(t) = a'(u), s'(t), s''(t): the chain rule through t then gives a'' and a'''.
    """

    function: Callable[[Tensor, float], Tensor]
    alpha: float
    gain: float
    keeps: str
    slopes: tuple[Slope, Slope, Slope]


def _zero(v: Tensor, alpha: float) -> Tensor:
    return torch.zeros_like(v)


def _swish_slope1(u: Tensor, alpha: float) -> Tensor:
    s = torch.sigmoid(u)
    return s * (1 + u * (1 - s))


def _swish_slope2(u: Tensor, alpha: float) -> Tensor:
    s = torch.sigmoid(u)
    return s * (1 - s) * (2 + u * (1 - 2 * s))


def _swish_slope3(u: Tensor, alpha: float) -> Tensor:
    s = torch.sigmoid(u)
    return s * (1 - s) * (3 * (1 - 2 * s) + u * (1 - 6 * s + 6 * s * s))


def _normal_cdf(u: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(u * math.sqrt(0.5)))


def _normal_pdf(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u * u) * (1 / math.sqrt(2 * math.pi))


def _where_positive(if_positive: Callable[[Tensor], Tensor], otherwise: Callable[[Tensor], Tensor]) -> Slope:
    return lambda v, alpha: torch.where(v > 0, if_positive(v), otherwise(v))


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda u, a: u, 0.0, 1.0, "y", (lambda t, a: torch.ones_like(t), _zero, _zero)),
    "relu": Activation(
        lambda u, a: torch.relu(u), 0.0, math.sqrt(2), "y", (lambda t, a: (t > 0).to(t.dtype), _zero, _zero)
    ),
    "lrelu": Activation(
        lambda u, a: F.leaky_relu(u, a),
        0.2,
        math.sqrt(2),
        "y",
        (lambda v, a: torch.where(v > 0, torch.ones_like(v), a), _zero, _zero),
    ),
    "tanh": Activation(
        lambda u, a: torch.tanh(u),
        0.0,
        1.0,
        "y",
        (lambda t, a: 1 - t * t, lambda t, a: -2 * t, lambda t, a: torch.full_like(t, -2)),
    ),
    "sigmoid": Activation(
        lambda u, a: torch.sigmoid(u),
        0.0,
        1.0,
        "y",
        (lambda t, a: t * (1 - t), lambda t, a: 1 - 2 * t, lambda t, a: torch.full_like(t, -2)),
    ),
    "elu": Activation(
        lambda u, a: F.elu(u),
        0.0,
        1.0,
        "y",
        (
            _where_positive(torch.ones_like, lambda t: t + 1),
            _where_positive(torch.zeros_like, torch.ones_like),
            _zero,
        ),
    ),
    "selu": Activation(
        lambda u, a: F.selu(u),
        0.0,
        1.0,
        "y",
        (
            _where_positive(lambda t: torch.full_like(t, SELU_SCALE), lambda t: t + SELU_SCALE * SELU_ALPHA),
            _where_positive(torch.zeros_like, torch.ones_like),
            _zero,
        ),
    ),
    "softplus": Activation(
        lambda u, a: F.softplus(u),
        0.0,
        1.0,
        "y",
        (lambda t, a: -torch.expm1(-t), lambda t, a: torch.exp(-t), lambda t, a: -torch.exp(-t)),
    ),
    "swish": Activation(
        lambda u, a: u * torch.sigmoid(u), 0.0, math.sqrt(2), "u", (_swish_slope1, _swish_slope2, _swish_slope3)
    ),
    "gelu": Activation(
        lambda u, a: F.gelu(u),
        0.0,
        1.0,
        "u",
        (
            lambda u, a: _normal_cdf(u) + u * _normal_pdf(u),
            lambda u, a: (2 - u * u) * _normal_pdf(u),
            lambda u, a: (u * u - 4) * u * _normal_pdf(u),
        ),
    ),
}


def keeps(act: str, alpha: float) -> str:
    """What the backward pass keeps: "y" or "u". A leaky ReLU of negative slope hides the sign of u in y."""
    return "u" if act == "lrelu" and alpha < 0 else ACTIVATIONS[act].keeps


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which every op accumulates: float64 for float64 data, float32 for all else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def along_dim(b: Tensor, ndim: int, dim: int) -> Tensor:
    return b.reshape([-1 if i == dim else 1 for i in range(ndim)])


def clamp_with_zero_slope(y: Tensor, clamp: float) -> Tensor:
    """Clamp to [-clamp, clamp]; keep NaN; the gradient is zero wherever abs(y) >= clamp. Negative: no clamp."""
    return y if clamp < 0 else torch.where(y.abs() >= clamp, y.detach().clamp(-clamp, clamp), y)


def bias_act(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float) -> Tensor:
    """clamp(gain * act(x + b)); clamp < 0 is off. Any rank, computed in float32 (float64 for float64)."""
    u = x.to(compute_dtype(x.dtype))
    if b is not None:
        u = u + along_dim(b, x.ndim, dim).to(u.dtype)
    y = ACTIVATIONS[act].function(u, alpha) * gain
    return clamp_with_zero_slope(y, clamp).to(x.dtype)


def bias_act_grad(
    dy: Tensor, kept: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float, order: int
) -> Tensor:
    """dy times the order-th slope of bias_act at ``kept`` (1: dx; 2: the derivative of that slope in ``kept``; ...).

    ``kept`` is bias_act's result where keeps(act, alpha) is "y", else its argument x (to which b is added).
    """
    activation = ACTIVATIONS[act]
    v = kept.to(compute_dtype(kept.dtype))
    if keeps(act, alpha) == "y":
        y, v = v, v * (1 / gain if gain else 0.0)
        scale = gain ** (2 - order) if gain else 0.0
    else:
        if b is not None:
            v = v + along_dim(b, v.ndim, dim).to(v.dtype)
        y = activation.function(v, alpha) * gain
        scale = gain
    slope = activation.slopes[order - 1](v, alpha) * scale
    if clamp >= 0:
        slope = torch.where(y.abs() >= clamp, torch.zeros_like(slope), slope)
    return (dy.to(slope.dtype) * slope).to(dy.dtype)
