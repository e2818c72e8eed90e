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
from ._library import Operator, register_composed

_NAME = "winograd_conv2d"
_WANTED = os.environ.get("GANOPS_WINOGRAD") != "0"
MIN_CHANNELS = 64  # with fewer, the transforms cost more than they save
MIN_TILES = 160  # of 4x4 outputs; likewise, for the filter's transform


def serves(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> bool:
    """Whether this is the way to convolve x with weight [O, I, kh, kw], with stride 1, where autograd does not look."""
    tiles = x.shape[0] * (x.shape[2] + 2 * padding[0] - 2) * (x.shape[3] + 2 * padding[1] - 2) // 16
    return (
        _WANTED
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and tuple(weight.shape[2:]) == (3, 3)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and tiles >= MIN_TILES
        and not torch.compiler.is_compiling()
        and _backend.chosen() in (_backend.AUTO, "cpu")
        and _backend.why_not("cpu", _NAME) is None
    )


def winograd_conv2d(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """Correlate x [N, I, H, W] with weight [O, I, 3, 3]; padding is (y, x)."""
    y: Tensor = torch.ops.ganops.winograd_conv2d(x, weight, *padding)
    return y


def _reference(x: Tensor, weight: Tensor, pad_y: int, pad_x: int) -> Tensor:
    return F.conv2d(x, weight, padding=(pad_y, pad_x))


def _fake(x: Tensor, weight: Tensor, pad_y: int, pad_x: int) -> Tensor:
    size = (x.shape[0], weight.shape[0], x.shape[2] + 2 * pad_y - 2, x.shape[3] + 2 * pad_x - 2)
    return x.new_empty(size)


register_composed(Operator(_NAME, "(Tensor x, Tensor weight, SymInt pad_y, SymInt pad_x) -> Tensor", _reference, _fake))
