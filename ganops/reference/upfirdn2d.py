"""upfirdn2d: upsample by zeros, pad, filter, downsample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .bias_act import compute_dtype

MIN_SEPARABLE_TAPS = 8


def pad_or_crop(x: Tensor, padding: tuple[int, int, int, int], value: float = 0) -> Tensor:
    """Pads, then crops where padding is negative: by more than x holds, too, which torch's pad refuses."""
    x = F.pad(x, [max(p, 0) for p in padding], value=value)
    left, right, top, bottom = (max(-p, 0) for p in padding)
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """up and down are (x, y), padding is (x_before, x_after, y_before, y_after) in the upsampled image."""
    n, c, h, w = x.shape
    y = x.to(compute_dtype(x.dtype))
    y = F.pad(y.reshape(n, c, h, 1, w, 1), [0, up[0] - 1, 0, 0, 0, up[1] - 1]).reshape(n, c, h * up[1], w * up[0])
    y = pad_or_crop(y, padding)
    if f is not None:
        f = f.to(y.dtype) if flip_filter else f.to(y.dtype).flip(list(range(f.ndim)))
        kernels = [f[None, :], f[:, None]] if f.ndim == 1 else [f]
        for kernel in kernels:
            y = F.conv2d(y, kernel.expand(c, 1, -1, -1), groups=c)
    y = y[:, :, :: down[1], :: down[0]] * gain
    return y.to(x.dtype)


def setup_filter(
    f: Tensor | list[float] | list[list[float]] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """A float32 FIR filter for upfirdn2d: see ganops.setup_filter."""
    taps: Tensor = torch.as_tensor(1.0 if f is None else f, device="cpu").detach().to(torch.float32)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"f must be a number, [taps] or [height, width], and not empty, got shape {list(taps.shape)}")
    if taps.ndim == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= MIN_SEPARABLE_TAPS
    if separable and taps.ndim == 2:
        raise ValueError(f"separable=True wants f of shape [taps], got {list(taps.shape)}")
    if not separable and taps.ndim == 1:
        taps = taps.outer(taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    taps = taps * gain ** (taps.ndim / 2)
    return taps.to(device)
