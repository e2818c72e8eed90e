"""The convolution of scaled channels, as a step of autograd that can leave out the weight's gradient."""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._backend import call
from .._compile import constant_result
from .._weight_gradients import weight_gradients_disabled
from ..reference.modulated_conv2d import scaled
from . import gemm_conv2d as gemm
from . import winograd_conv2d as winograd

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


def needs_graph(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def scaled_convolution(
    x: Tensor, weight: Tensor, scale: Tensor | None, geometry: Geometry, scales_output: bool = False
) -> Tensor:
    """Convolve ``x * scale[n, c]``, or scale the result, with weight: [O, I, kh, kw], or [I, O, kh, kw] if transposed.

    Computed in x's dtype. Differentiable to any order; :func:`ganops.no_weight_gradients` is honoured.
    """
    if not needs_graph(x, weight, scale):
        return _ScaledConvolution.forward(x, weight, scale, geometry, scales_output)
    y: Tensor = _ScaledConvolution.apply(x, weight, scale, geometry, scales_output)  # type: ignore[no-untyped-call]
    return y


class _ScaledConvolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, scale: Tensor | None, geometry: Geometry, scales_output: bool) -> Tensor:
        return convolution(x, weight, geometry, *((None, scale) if scales_output else (scale, None)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, scale, ctx.geometry, ctx.scales_output = inputs
        ctx.save_for_backward(x, weight, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, scale = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        adjoint = geometry.adjoint(x, weight, dy)
        needs_x, needs_weight, needs_scale = ctx.needs_input_grad[:3]
        needs_weight = needs_weight and not weight_gradients_disabled() and is_wanted(ctx, 1)
        dx = dweight = dscale = None
        if ctx.scales_output:
            dx = scaled_convolution(dy, weight, scale, adjoint) if needs_x else None
            dscale = (
                channel_dot(scaled_convolution(x, weight, None, geometry), dy).to(scale.dtype) if needs_scale else None
            )
            dweight = weight_gradient(dy, x, weight, geometry, dy_scale=scale) if needs_weight else None
        elif needs_weight and scale is not None and _is_lone(x, weight):
            of_scaled = weight_gradient(dy, x, weight, geometry)
            dweight = of_scaled * _along_weight(scale, geometry.transposed)
            dscale = (of_scaled * weight).sum((1, 2, 3) if geometry.transposed else (0, 2, 3))[None]
            dx = scaled_convolution(dy, weight, scale, adjoint, scales_output=True) if needs_x else None
        else:
            if needs_x or needs_scale:
                of_scaled = scaled_convolution(dy, weight, None, adjoint)
                dx = scaled(of_scaled, scale)
                dscale = channel_dot(of_scaled, x).to(scale.dtype) if needs_scale else None
            dweight = weight_gradient(dy, x, weight, geometry, x_scale=scale) if needs_weight else None
        return dx, dweight, dscale, None, None


def _is_lone(x: Tensor, weight: Tensor) -> bool:
    """Whether to scale the weight: those of one sample, if they are fewer than its pixels."""
    return x.shape[0] == 1 and weight.numel() < x.numel()


def _along_weight(scale: Tensor, first_dim: bool) -> Tensor:
    return scale.reshape((-1, 1, 1, 1) if first_dim else (1, -1, 1, 1))


def channel_dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum [N, C] of a * b over the pixels."""
    return torch.einsum("nchw,nchw->nc", a, b)


def convolution(
    x: Tensor, weight: Tensor, geometry: Geometry, scale: Tensor | None = None, out_scale: Tensor | None = None
) -> Tensor:
    """Of x times scale [N, C], and the result times out_scale [N, C'], where autograd does not look."""
    if geometry.stride == 1:
        plain, around, flips = weight, geometry.padding, geometry.transposed
        if geometry.transposed:  # the plain one of the flipped weight
            plain = weight.transpose(0, 1)
            around = (weight.shape[2] - 1 - around[0], weight.shape[3] - 1 - around[1])
        if min(around) >= 0 and winograd.serves(x, plain, around):
            return winograd.winograd_conv2d(x, plain.flip([2, 3]) if flips else plain, scale, around, out_scale)
        if min(around) >= 0 and gemm.serves(x, plain):
            return gemm.gemm_conv2d(x, plain, scale, around, flips, out_scale)
    if torch_dtype(x) != x.dtype:
        return convolution(x.to(torch_dtype(x)), weight, geometry, scale, out_scale).to(x.dtype)
    if _is_lone(x, weight):
        for factors, first_dim in ((scale, geometry.transposed), (out_scale, not geometry.transposed)):
            weight = weight if factors is None else weight * _along_weight(factors, first_dim)
        scale = out_scale = None
    y: Tensor = torch.ops.aten.convolution(scaled(x, scale), weight.to(x.dtype), None, *geometry.arguments())
    if out_scale is not None:
        y = call("modulated_conv2d_epilogue", y, out_scale, None, None, "linear", 0.0, 1.0, -1.0)
    return y


def torch_dtype(x: Tensor) -> torch.dtype:
    """In which torch is to convolve x."""
    slow = x.dtype == torch.bfloat16 and x.device.type == "cpu" and not _multiplies_bfloat16()
    return torch.float32 if slow else x.dtype


@constant_result
@functools.cache
def _multiplies_bfloat16() -> bool:
    """Whether torch's bfloat16 convolutions are worth it: with AVX512-BF16, but without AMX.

    On an AMD EPYC with the former, 3x3 convolutions take half the time of float32 with conversions. Of a processor that
    says it has AMX, oneDNN makes use; where a virtual machine does not let it, that is an illegal instruction.
    """
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported and torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def weight_gradient(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: Geometry,
    dy_scale: Tensor | None = None,
    x_scale: Tensor | None = None,
) -> Tensor:
    """Of the convolution of x * x_scale[n, c], whose result's gradient is dy * dy_scale[n, c]; in weight's dtype.

    Differentiable to any order.
    """
    dweight: Tensor
    if needs_graph(dy, x, dy_scale, x_scale):
        operands = scaled(dy, dy_scale), scaled(x, x_scale)
        dweight = _WeightGradient.apply(*operands, weight.detach(), geometry)  # type: ignore[no-untyped-call]
    elif torch_dtype(x) != x.dtype:
        floats = dy.to(torch_dtype(x)), x.to(torch_dtype(x))
        dweight = weight_gradient(*floats, weight, geometry, dy_scale, x_scale)
    elif geometry.stride == 1 and geometry.transposed and winograd.serves(dy, weight, geometry.padding):
        dweight = winograd.winograd_conv2d_weight_grad(x, dy, x_scale, dy_scale, geometry.padding)
    elif geometry.stride == 1 and not geometry.transposed and winograd.serves(x, weight, geometry.padding):
        dweight = winograd.winograd_conv2d_weight_grad(dy, x, dy_scale, x_scale, geometry.padding)
    else:
        options = (None, *geometry.arguments(), [False, True, False])
        like = weight.detach().to(x.dtype)
        dweight = torch.ops.aten.convolution_backward(scaled(dy, dy_scale), scaled(x, x_scale), like, *options)[1]
    return dweight.to(weight.dtype)


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(dy: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        return weight_gradient(dy, x, weight, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.geometry = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy, x, weight = ctx.saved_tensors
        g = gradients[0].to(x.dtype)
        ddy = scaled_convolution(x, g, None, ctx.geometry) if ctx.needs_input_grad[0] else None
        dx = scaled_convolution(dy, g, None, ctx.geometry.adjoint(x, weight, dy)) if ctx.needs_input_grad[1] else None
        return ddy, dx, None, None


def is_wanted(ctx: Any, index: int) -> bool:
    """Whether this backward pass goes on through the input of this index: torch.autograd.grad names those it wants."""
    if torch.compiler.is_compiling():
        return True
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[index][0])
    except RuntimeError:  # of a leaf, torch.autograd.grad does not say
        return True
