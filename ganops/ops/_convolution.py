"""The convolution of scaled channels, as a step of autograd that can leave out the weight's gradient."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._weight_gradients import weight_gradients_disabled

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Of a convolution, or of a transposed one. Pairs are (y, x)."""

    stride: int = 1
    padding: Pair = (0, 0)
    transposed: bool = False
    output_padding: Pair = (0, 0)

    def arguments(self) -> tuple[Any, ...]:
        return [self.stride] * 2, self.padding, (1, 1), self.transposed, self.output_padding, 1

    def adjoint(self, x: Tensor, weight: Tensor, y: Tensor) -> "Geometry":
        """The geometry that maps y's gradient to x's, with the same weight."""
        if self.transposed:
            return Geometry(self.stride, self.padding)
        sizes = zip(x.shape[2:], y.shape[2:], weight.shape[-2:], self.padding, strict=True)
        y_rest, x_rest = (into - ((out - 1) * self.stride - 2 * pad + taps) for into, out, taps, pad in sizes)
        return Geometry(self.stride, self.padding, True, (y_rest, x_rest))


def scaled_convolution(x: Tensor, weight: Tensor, styles: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve ``x * styles[n, c]`` (styles None: x) with weight: [O, I, kh, kw], or [I, O, kh, kw] if transposed.

    Computed in x's dtype. Differentiable to any order; :func:`ganops.no_weight_gradients` is honoured.
    """
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, styles))):
        return _ScaledConvolution.forward(x, weight, styles, geometry)
    y: Tensor = _ScaledConvolution.apply(x, weight, styles, geometry)  # type: ignore[no-untyped-call]
    return y


class _ScaledConvolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, styles: Tensor | None, geometry: Geometry) -> Tensor:
        if styles is not None and x.shape[0] == 1 and weight.numel() < x.numel():
            along = (-1, 1, 1, 1) if geometry.transposed else (1, -1, 1, 1)
            weight = weight * styles.reshape(along)  # a lone sample's weights are fewer than its pixels
        elif styles is not None:
            x = _scale(x, styles)
        y: Tensor = torch.ops.aten.convolution(x, weight.to(x.dtype), None, *geometry.arguments())
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, styles, ctx.geometry = inputs
        ctx.save_for_backward(x, weight, styles)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, styles = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        needs_x, needs_weight, needs_styles, _ = ctx.needs_input_grad
        dx = dweight = dstyles = None
        if needs_x or needs_styles:
            g = scaled_convolution(dy, weight, None, geometry.adjoint(x, weight, dy))
            dx = g if styles is None else _scale(g, styles)
            dstyles = torch.einsum("nchw,nchw->nc", g, x).to(styles.dtype) if needs_styles else None
        if needs_weight and not weight_gradients_disabled() and is_wanted(ctx, 1):
            scaled = x if styles is None else _scale(x, styles)
            mask = [False, True, False]
            dweight = torch.ops.aten.convolution_backward(
                dy, scaled, weight.detach().to(x.dtype), None, *geometry.arguments(), mask
            )[1].to(weight.dtype)
        return dx, dweight, dstyles, None


def _scale(x: Tensor, styles: Tensor) -> Tensor:
    return x * styles[:, :, None, None].to(x.dtype)


def is_wanted(ctx: Any, index: int) -> bool:
    """Whether this backward pass goes on through the input of this index: torch.autograd.grad names those it wants."""
    if torch.compiler.is_compiling():
        return True
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[index][0])
    except RuntimeError:  # of a leaf, torch.autograd.grad does not say
        return True
