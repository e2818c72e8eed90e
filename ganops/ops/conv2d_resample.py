"""conv2d_resample: a convolution with resampling before or after it, composed of upfirdn2d and torch's convolution."""

import torch
from torch import Tensor

from .. import _backend, _checks
from ._convolution import Geometry, scaled_convolution
from .modulated_conv2d import resampled_conv2d


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | list[int] = 0,
    flip_weight: bool = True,
) -> Tensor:
    """Upsample by ``up`` with filter f, convolve with w, downsample by ``down`` with f; in the cheapest order.

    Args:
        x: ``[N, I, H, W]``, float16, bfloat16, float32 or float64.
        w: weight ``[O, I, kh, kw]`` of x's dtype.
        f: FIR filter as in :func:`ganops.upfirdn2d`; None is the identity.
        up: upsampling factor before the convolution.
        down: downsampling factor after it.
        padding: in the upsampled image, an int, ``[x, y]`` or ``[x_before, x_after, y_before, y_after]``; that of a
            centred f is added to it.
        flip_weight: True correlates, as torch.nn.functional.conv2d does; False convolves.

    Returns:
        ``[N, O, H', W']`` of x's dtype (under autocast: autocast's). Differentiable to any order in x and w.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), appendix B.
    """
    _checks.image("x", x)
    w = _checks.tensor("w", w)
    if w.ndim != 4 or w.shape[1] != x.shape[1] or 0 in w.shape:
        raise ValueError(f"w must have shape [O, {x.shape[1]}, kh, kw] (x's channels), got {list(w.shape)}")
    reduced = _backend.autocast_dtype(x.device)
    if reduced is None and w.dtype != x.dtype:
        raise TypeError(f"w must have x's dtype {x.dtype}, got {w.dtype}")
    f = _checks.fir_filter("f", f, x)
    up, down = _checks.integer("up", up, 1), _checks.integer("down", down, 1)
    pads = _checks.padding(padding)
    flip_weight = _checks.boolean("flip_weight", flip_weight)
    if reduced and x.dtype != torch.float64:
        x = x.to(reduced)
    return resampled_conv2d(_convolve, x, w, up, down, pads, f, flip_weight)


def _convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    return scaled_convolution(x, weight, None, geometry)
