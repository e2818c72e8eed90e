"""filtered_lrelu: bias, filtered upsampling, leaky ReLU, clamp, filtered downsampling."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .bias_act import along_dim, clamp_with_zero_slope, compute_dtype
from .upfirdn2d import pad_or_crop, upfirdn2d

NEGATIVE, CLAMPED = 1, 2  # the code of a sample that took the slope, or that hit the clamp; 0 otherwise
SAMPLES_PER_BYTE = 4


def _upsample(
    x: Tensor, fu: Tensor | None, b: Tensor | None, up: int, padding: tuple[int, int, int, int], flip: bool
) -> Tensor:
    u = x.to(compute_dtype(x.dtype))
    if b is not None:
        u = u + along_dim(b, 4, 1).to(u.dtype)
    return upfirdn2d(u, fu, (up, up), (1, 1), padding, flip, float(up * up))


def _downsample(v: Tensor, fd: Tensor | None, down: int, flip: bool) -> Tensor:
    return upfirdn2d(v, fd, (1, 1), (down, down), (0, 0, 0, 0), flip, 1.0)


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float,
    flip_filter: bool,
) -> Tensor:
    """The chain of four operations; clamp < 0 is off. The leaky ReLU goes by the sign bit: +0 has slope 1."""
    u = _upsample(x, fu, b, up, padding, flip_filter) * gain
    v = clamp_with_zero_slope(torch.where(torch.signbit(u), u * slope, u), clamp)
    return _downsample(v, fd, down, flip_filter).to(x.dtype)


def filtered_lrelu_codes(
    x: Tensor,
    fu: Tensor | None,
    b: Tensor | None,
    up: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float,
    flip_filter: bool,
) -> Tensor:
    """What was done to each upsampled sample: [N, C, H', ceil(W'/4)] uint8, the first of four in the low bits."""
    u = _upsample(x, fu, b, up, padding, flip_filter) * gain
    code = torch.signbit(u).to(torch.uint8) * NEGATIVE
    if clamp >= 0:
        clamped = torch.where(torch.signbit(u), u * slope, u).abs() >= clamp
        code = torch.where(clamped, torch.full_like(code, CLAMPED), code)
    code = F.pad(code, [0, -code.shape[3] % SAMPLES_PER_BYTE])
    packed: Tensor = code[..., 0::4] | code[..., 1::4] << 2 | code[..., 2::4] << 4 | code[..., 3::4] << 6
    return packed


def filtered_lrelu_grad(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    codes: Tensor,
    codes_width: int,
    offset: tuple[int, int],
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    flip_filter: bool,
) -> Tensor:
    """filtered_lrelu with its decisions read from codes: linear in x.

    Intermediate sample (i, j) obeys code (i + offset[1], j + offset[0]); beyond the codes' edges it is zero.
    """
    u = _upsample(x, fu, None, up, padding, flip_filter)
    code = torch.stack([codes >> 2 * i & 3 for i in range(SAMPLES_PER_BYTE)], dim=-1).flatten(3)[..., :codes_width]
    (left, top), (height, width) = offset, u.shape[2:]
    around = (-left, left + width - code.shape[3], -top, top + height - code.shape[2])
    code = pad_or_crop(code, around, CLAMPED)
    v = torch.where(code == NEGATIVE, u * slope, u) * gain
    v = torch.where(code == CLAMPED, torch.zeros_like(v), v)
    return _downsample(v, fd, down, flip_filter).to(x.dtype)
