"""gemm_conv2d: a convolution on CPUs as an implicit matrix product, of float32 or of bfloat16 factors.

Sums are float32. ``GANOPS_GEMM=0`` in the environment leaves every convolution to the other ways; ``GANOPS_BFLOAT16=0``
those of bfloat16 factors.
"""

import functools
import os

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _backend
from ..reference.modulated_conv2d import scaled
from ._library import Operator, register_composed

_NAME = "gemm_conv2d"
_DTYPES = (torch.bfloat16, torch.float32)  # of images; settled at import, as filter_energy's
_WANTED = os.environ.get("GANOPS_GEMM") != "0"
# Where it was faster than torch's convolution when timed: of these shapes, by these instructions.
FEW_OUTPUTS = 4  # of one tap
FEW_BFLOAT16_OUTPUTS = 16  # of any
MIN_PIXELS = 4096  # of more outputs
MAX_TAPS = 4  # in bfloat16
FLOAT32_MIN_CHANNELS = 128  # of the input


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether this is the way to convolve x with weight [O, I, kh, kw], with stride 1, where autograd does not look."""
    return (
        _WANTED
        and x.dtype in _DTYPES
        and x.is_contiguous()
        and _backend.has_cpu_kernel(_NAME, x)
        and _is_faster(x, weight)
    )


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    if _splits(x, weight):
        return True
    outputs, channels, taps = weight.shape[-4], weight.shape[-3], weight.shape[-2:].numel()
    vectors, is_large = _vector_instructions(), x.shape[2] * x.shape[3] >= MIN_PIXELS
    if taps == 1 and outputs <= FEW_OUTPUTS and vectors != "baseline":
        return True
    if x.dtype == torch.bfloat16:
        is_small = outputs <= FEW_BFLOAT16_OUTPUTS or (is_large and taps <= MAX_TAPS)
        return _has_tiles() or (instructions() != "none" and is_small)
    return taps == 1 and vectors == "x86-64-v4" and is_large and channels >= FLOAT32_MIN_CHANNELS


def _splits(x: Tensor, weight: Tensor) -> bool:
    """Whether to multiply float32 as three products of bfloat16."""
    is_allowed = torch.get_float32_matmul_precision() != "highest"
    return x.dtype == torch.float32 and _has_tiles() and weight.shape[-2:].numel() > 1 and is_allowed


def _has_tiles() -> bool:
    return instructions().startswith("AMX")


@functools.cache
def _vector_instructions() -> str:
    return str(torch.ops.ganops.cpu_instruction_set())


@functools.cache
def instructions() -> str:
    """By which this processor multiplies bfloat16: "AVX512-BF16", "AMX", "AMX, emulated" or "none"."""
    return str(torch.ops.ganops.cpu_bfloat16_instructions())


def gemm_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    padding: tuple[int, int],
    flips: bool = False,
    out_scale: Tensor | None = None,
) -> Tensor:
    """Convolve x [N, I, H, W] times scale [N, I] with weight [O, I, kh, kw], flipped or not; padding is (y, x).

    The result is [N, O, H', W'], times out_scale [N, O].
    """
    y: Tensor = torch.ops.ganops.gemm_conv2d(x, weight, scale, out_scale, *padding, flips, _splits(x, weight))
    return y


def _reference(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    out_scale: Tensor | None,
    pad_y: int,
    pad_x: int,
    flips: bool,
    splits: bool,
) -> Tensor:
    taps = weight.flip([2, 3]) if flips else weight
    return scaled(F.conv2d(scaled(x, scale), taps.to(x.dtype), padding=(pad_y, pad_x)), out_scale)


def _fake(
    x: Tensor, weight: Tensor, scale: Tensor | None, out_scale: Tensor | None, pad_y: int, pad_x: int, *options: bool
) -> Tensor:
    height = x.shape[2] + 2 * pad_y - weight.shape[2] + 1
    width = x.shape[3] + 2 * pad_x - weight.shape[3] + 1
    return x.new_empty((x.shape[0], weight.shape[0], height, width))


_OPTIONS = "SymInt pad_y, SymInt pad_x, bool flips, bool splits"
_TENSORS = "Tensor x, Tensor weight, Tensor? scale, Tensor? out_scale"
register_composed(Operator(_NAME, f"({_TENSORS}, {_OPTIONS}) -> Tensor", _reference, _fake))
