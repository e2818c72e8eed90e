"""winograd_conv2d: a 3x3 convolution on CPUs with a quarter of the multiplications.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), F(4x4, 3x3). Its float32 error is
greater than that of the direct sum: at most 2e-5 of the result's RMS. ``GANOPS_WINOGRAD=0`` in the environment
leaves every convolution to torch.
"""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from ..reference.modulated_conv2d import scaled
from ._library import Operator, register_composed

_DTYPE = torch.float32  # settled at import, as filter_energy's
_NAME, _GRADIENT = "winograd_conv2d", "winograd_conv2d_weight_grad"
_WANTED = os.environ.get("GANOPS_WINOGRAD") != "0"
MIN_CHANNELS = 64  # with fewer, the transforms cost more than they save
MIN_TILES = 24  # of 4x4 outputs; likewise, for the filter's transform
BFLOAT16_MIN_CHANNELS, BFLOAT16_MIN_TILES = 256, 256  # likewise, where AVX512-BF16 multiplies twice as fast as float32


def serves(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> bool:
    """Whether this is the way to convolve x with weight [O, I, kh, kw], with stride 1, where autograd does not look."""
    return x.dtype == _DTYPE and _is_large(x, weight, padding, MIN_CHANNELS, MIN_TILES)


def beats_bfloat16(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> bool:
    """Whether converting x to float32 for this is faster than a product of bfloat16 vectors."""
    return _is_large(x, weight, padding, BFLOAT16_MIN_CHANNELS, BFLOAT16_MIN_TILES)


def _is_large(x: Tensor, weight: Tensor, padding: tuple[int, int], channels: int, tiles: int) -> bool:
    return (
        _WANTED
        and tuple(weight.shape[-2:]) == (3, 3)
        and min(weight.shape[-4:-2]) >= channels
        and x.shape[0] * (x.shape[2] + 2 * padding[0] - 2) * (x.shape[3] + 2 * padding[1] - 2) // 16 >= tiles
        and _backend.has_cpu_kernel(_NAME, x)
    )


def winograd_conv2d(
    x: Tensor, weight: Tensor, scale: Tensor | None, padding: tuple[int, int], out_scale: Tensor | None = None
) -> Tensor:
    """Correlate x [N, I, H, W] times scale [N, I] with weight [O, I, 3, 3]; padding is (y, x).

    The result is [N, O, H', W'], times out_scale [N, O].
    """
    y: Tensor = torch.ops.ganops.winograd_conv2d(x, weight, scale, out_scale, *padding)
    return y


def winograd_conv2d_weight_grad(
    dy: Tensor, x: Tensor, dy_scale: Tensor | None, x_scale: Tensor | None, padding: tuple[int, int]
) -> Tensor:
    """The gradient [O, I, 3, 3] of the weight; dy [N, O, H', W'] times dy_scale [N, O] is that of the result."""
    dweight: Tensor = torch.ops.ganops.winograd_conv2d_weight_grad(dy, x, dy_scale, x_scale, *padding)
    return dweight


def _reference(
    x: Tensor, weight: Tensor, scale: Tensor | None, out_scale: Tensor | None, pad_y: int, pad_x: int
) -> Tensor:
    return scaled(F.conv2d(scaled(x, scale), weight, padding=(pad_y, pad_x)), out_scale)


def _fake(x: Tensor, weight: Tensor, scale: Tensor | None, out_scale: Tensor | None, pad_y: int, pad_x: int) -> Tensor:
    size = (x.shape[0], weight.shape[0], x.shape[2] + 2 * pad_y - 2, x.shape[3] + 2 * pad_x - 2)
    return x.new_empty(size)


def _reference_gradient(
    dy: Tensor, x: Tensor, dy_scale: Tensor | None, x_scale: Tensor | None, pad_y: int, pad_x: int
) -> Tensor:
    like, options = x.new_empty(dy.shape[1], x.shape[1], 3, 3), ((1, 1), (pad_y, pad_x), (1, 1), False, (0, 0), 1)
    needed = [False, True, False]
    dweight: Tensor = torch.ops.aten.convolution_backward(
        scaled(dy, dy_scale), scaled(x, x_scale), like, None, *options, needed
    )[1]
    return dweight


def _fake_gradient(
    dy: Tensor, x: Tensor, dy_scale: Tensor | None, x_scale: Tensor | None, pad_y: int, pad_x: int
) -> Tensor:
    return x.new_empty((dy.shape[1], x.shape[1], 3, 3))


_PADS = "SymInt pad_y, SymInt pad_x"
_TENSORS = "Tensor x, Tensor weight, Tensor? scale, Tensor? out_scale"
register_composed(Operator(_NAME, f"({_TENSORS}, {_PADS}) -> Tensor", _reference, _fake))
_SCALES = "Tensor? dy_scale, Tensor? x_scale"
register_composed(
    Operator(_GRADIENT, f"(Tensor dy, Tensor x, {_SCALES}, {_PADS}) -> Tensor", _reference_gradient, _fake_gradient)
)
