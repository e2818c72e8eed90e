"""bfloat16_conv2d: a convolution on CPUs as an implicit product of bfloat16 matrices, summed in float32.

``GANOPS_BFLOAT16=0`` in the environment leaves every convolution to the other ways.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from ..reference.modulated_conv2d import scaled
from ._library import Operator, register_composed

_NAME = "bfloat16_conv2d"
FEW_OUTPUTS = 16  # torch's convolution computes as many as with these
MIN_PIXELS, MAX_TAPS = 4096, 4  # of more outputs; with fewer pixels or more taps, torch's convolution is faster


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether this is the way to convolve x with weight [O, I, kh, kw], with stride 1, where autograd does not look."""
    return (
        x.dtype in (torch.bfloat16, torch.float32)
        and x.device.type == "cpu"
        and x.is_contiguous()
        and not torch.compiler.is_compiling()
        and _backend.chosen() in (_backend.AUTO, "cpu")
        and _backend.why_not("cpu", _NAME) is None
        and _is_faster(x, weight)
    )


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    outputs, taps = weight.shape[-4], weight.shape[-2] * weight.shape[-1]
    has_tiles = instructions().startswith("AMX")
    if x.dtype == torch.float32:
        return has_tiles and taps > 1 and torch.get_float32_matmul_precision() != "highest"
    few_taps = taps <= MAX_TAPS and x.shape[2] * x.shape[3] >= MIN_PIXELS
    return has_tiles or (instructions() != "none" and (outputs <= FEW_OUTPUTS or few_taps))


@functools.cache
def instructions() -> str:
    """By which this processor multiplies bfloat16: "AVX512-BF16", "AMX", "AMX, emulated" or "none"."""
    return str(torch.ops.ganops.cpu_bfloat16_instructions())


def bfloat16_conv2d(x: Tensor, weight: Tensor, scale: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Correlate x [N, I, H, W] times scale [N, I] with weight [O, I, kh, kw]; padding is (y, x)."""
    y: Tensor = torch.ops.ganops.bfloat16_conv2d(x, weight, scale, *padding)
    return y


def _reference(x: Tensor, weight: Tensor, scale: Tensor | None, pad_y: int, pad_x: int) -> Tensor:
    return F.conv2d(scaled(x, scale), weight.to(x.dtype), padding=(pad_y, pad_x))


def _fake(x: Tensor, weight: Tensor, scale: Tensor | None, pad_y: int, pad_x: int) -> Tensor:
    height = x.shape[2] + 2 * pad_y - weight.shape[2] + 1
    width = x.shape[3] + 2 * pad_x - weight.shape[3] + 1
    return x.new_empty((x.shape[0], weight.shape[0], height, width))


register_composed(
    Operator(
        _NAME,
        "(Tensor x, Tensor weight, Tensor? scale, SymInt pad_y, SymInt pad_x) -> Tensor",
        _reference,
        _fake,
    )
)
