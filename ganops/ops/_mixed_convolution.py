"""Convolutions of samples with weights of their own, mixed out of a bank: one sample's weights exist at a time.

``y[n] = conv(x[n], sum_k mix[n, k] * bank[k])`` is linear in x, bank and mix, and so are the gradients in them: two
operators, whose gradients are made of these two, reach any order.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from .._formats import like_format, memory_format
from .._weight_gradients import weight_gradients_disabled
from ._convolution import Geometry, convolution, is_wanted, weight_gradient
from ._library import Operator, register_composed

_OPS = torch.ops.ganops
_GEOMETRY = "int stride, SymInt[2] padding, bool transposed, SymInt[2] output_padding"


def mixed_convolution(x: Tensor, bank: Tensor, mix: Tensor, geometry: Geometry) -> Tensor:
    """Convolve sample n of x with ``sum_k mix[n, k] * bank[k]``; the bank is [K, O, I, kh, kw], mix [N, K]."""
    y: Tensor = _OPS.mixed_convolution(x, bank, mix, *geometry)
    return y


def mixed_weight(bank: Tensor, mix: Tensor) -> Tensor:
    """One sample's weight; mix is [K]."""
    return (mix @ bank.flatten(1)).view(bank.shape[1:])


def _convolve(x: Tensor, bank: Tensor, mix: Tensor, *options: Any) -> Tensor:
    geometry = Geometry(*options)
    y = [convolution(x[n : n + 1], mixed_weight(bank, mix[n]), geometry) for n in range(x.shape[0])]
    if not y:
        return _fake(x, bank, mix, *options)
    return like_format(y[0] if len(y) == 1 else torch.cat(y), x)


def _fake(x: Tensor, bank: Tensor, mix: Tensor, *geometry: Any) -> Tensor:
    y = convolution(x, bank[0], Geometry(*geometry))
    return torch.empty_like(y, memory_format=memory_format(x))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bank, mix, *geometry = inputs
    ctx.geometry = Geometry(*geometry)
    ctx.save_for_backward(x, bank, mix)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, bank, mix = ctx.saved_tensors
    geometry: Geometry = ctx.geometry
    dx = dbank = dmix = None
    if ctx.needs_input_grad[0]:
        dx = mixed_convolution(dy, bank, mix, geometry.adjoint(x, bank, dy))
    wanted = ctx.needs_input_grad[1] and not weight_gradients_disabled() and is_wanted(ctx, 1), ctx.needs_input_grad[2]
    if any(wanted):
        dbank, dmix = _OPS.mixed_convolution_grad(dy, x, bank, mix, *geometry, wanted)
    return dx, dbank if wanted[0] else None, dmix if wanted[1] else None, None, None, None, None


def _sum_over_samples(dy: Tensor, x: Tensor, bank: Tensor, mix: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    """The gradients in bank and in mix; empty where they are not wanted."""
    geometry, (wants_bank, wants_mix) = Geometry(*options[:-1]), options[-1]
    dbank = bank.new_zeros(bank.shape if wants_bank else 0)
    dmix = mix.new_empty(mix.shape if wants_mix else 0)
    for n in range(x.shape[0]):
        dweight = weight_gradient(dy[n : n + 1], x[n : n + 1], bank[0], geometry).flatten()
        if wants_bank:
            dbank.flatten(1).addr_(mix[n], dweight)
        if wants_mix:
            dmix[n] = bank.flatten(1) @ dweight
    return dbank, dmix


def _grad_fake(dy: Tensor, x: Tensor, bank: Tensor, mix: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    wants_bank, wants_mix = options[-1]
    return bank.new_empty(bank.shape if wants_bank else 0), mix.new_empty(mix.shape if wants_mix else 0)


def _grad_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dy, x, bank, mix, *geometry, ctx.wanted = inputs
    ctx.geometry = Geometry(*geometry)
    ctx.save_for_backward(dy, x, bank, mix)


def _grad_backward(ctx: Any, g_bank: Tensor, g_mix: Tensor) -> tuple[Tensor | None, ...]:
    """What is differentiated is <dy, mixed_convolution(x, bank, mix)>, with g_bank for bank, plus g_mix for mix."""
    dy, x, bank, mix = ctx.saved_tensors
    geometry: Geometry = ctx.geometry
    adjoint = geometry.adjoint(x, bank, dy)
    terms = [pair for pair, wanted in zip([(g_bank, mix), (bank, g_mix)], ctx.wanted, strict=True) if wanted]
    ddy = dx = dbank = dmix = None
    if ctx.needs_input_grad[0]:
        ddy = functools.reduce(torch.add, [mixed_convolution(x, *term, geometry) for term in terms])
    if ctx.needs_input_grad[1]:
        dx = functools.reduce(torch.add, [mixed_convolution(dy, *term, adjoint) for term in terms])
    if ctx.needs_input_grad[2] and ctx.wanted[1]:
        dbank = _OPS.mixed_convolution_grad(dy, x, bank, g_mix, *geometry, [True, False])[0]
    if ctx.needs_input_grad[3] and ctx.wanted[0]:
        dmix = _OPS.mixed_convolution_grad(dy, x, g_bank, mix, *geometry, [False, True])[1]
    return ddy, dx, dbank, dmix, None, None, None, None, None


register_composed(
    Operator(
        "mixed_convolution",
        f"(Tensor x, Tensor bank, Tensor mix, {_GEOMETRY}) -> Tensor",
        _convolve,
        _fake,
        _setup_context,
        _backward,
    )
)
register_composed(
    Operator(
        "mixed_convolution_grad",
        f"(Tensor dy, Tensor x, Tensor bank, Tensor mix, {_GEOMETRY}, bool[2] wanted) -> (Tensor, Tensor)",
        _sum_over_samples,
        _grad_fake,
        _grad_setup_context,
        _grad_backward,
    )
)
