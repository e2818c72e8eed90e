"""modulated_conv2d: a convolution whose weights are scaled per sample by styles, and demodulated."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .bias_act import bias_act, compute_dtype
from .upfirdn2d import upfirdn2d

DEMODULATION_EPSILON = 1e-8


def _all_but_outputs(weight: Tensor) -> list[int]:
    """The dimensions of [O, I, kh, kw], or of a bank [K, O, I, kh, kw], but O."""
    return [dim for dim in range(weight.ndim) if dim != weight.ndim - 4]


def max_prenormalize(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """StyleGAN2: weight by its max-norm per output channel and sqrt(I*kh*kw), styles by their max-norm per sample."""
    tiny = torch.finfo(weight.dtype).tiny
    weight_norm = weight.abs().amax(_all_but_outputs(weight), keepdim=True) * weight.shape[-3:].numel() ** 0.5
    style_norm = styles.abs().amax(1, keepdim=True)
    return weight / weight_norm.clamp_min(tiny), styles / style_norm.clamp_min(tiny)


def rms_prenormalize(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """StyleGAN3: weight by its RMS per output channel, styles by one RMS over the whole batch."""
    tiny = torch.finfo(weight.dtype).tiny
    weight_square = weight.square().mean(_all_but_outputs(weight), keepdim=True)
    return weight * weight_square.clamp_min(tiny).rsqrt(), styles * styles.square().mean().clamp_min(tiny).rsqrt()


PRENORMALIZERS = {"max": max_prenormalize, "rms": rms_prenormalize}


def resampling_padding(
    padding: tuple[int, int, int, int], taps: tuple[int, int], up: int, down: int
) -> tuple[int, int, int, int]:
    """The padding in the upsampled image that keeps a (width, height)-tap resampling filter centred."""
    x0, x1, y0, y1 = padding
    width, height = taps
    if up > 1:
        x0, x1 = x0 + (width + up - 1) // 2, x1 + (width - up) // 2
        y0, y1 = y0 + (height + up - 1) // 2, y1 + (height - up) // 2
    if down > 1:
        x0, x1 = x0 + (width - down + 1) // 2, x1 + (width - down) // 2
        y0, y1 = y0 + (height - down + 1) // 2, y1 + (height - down) // 2
    return x0, x1, y0, y1


def filter_taps(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a resampling filter; None is the identity."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool,
    prenormalize: str,
    noise: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    resample_filter: Tensor | None,
    flip_weight: bool,
    input_gain: Tensor | None,
    bias: Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """By definition: each sample is convolved with weights of its own, w[n]."""
    y = x.to(compute_dtype(x.dtype))
    weight, styles = weight.to(y.dtype), styles.to(y.dtype)
    if demodulate and prenormalize != "none":
        weight, styles = PRENORMALIZERS[prenormalize](weight, styles)
    weights = weight.expand(x.shape[0], *weight.shape)
    args = (demodulate, noise, up, down, padding, resample_filter, flip_weight, input_gain, bias)
    return convolve_samples(y, weights, styles, *args, act, alpha, gain, clamp).to(x.dtype)


def convolve_samples(
    x: Tensor,
    weights: Tensor,
    styles: Tensor,
    demodulate: bool,
    noise: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    resample_filter: Tensor | None,
    flip_weight: bool,
    input_gain: Tensor | None,
    bias: Tensor | None,
    *activation: Any,
) -> Tensor:
    """Each sample with its weights, [N, O, I, kh, kw], modulated; then noise, bias and activation."""
    n, c, _, _ = x.shape
    w = weights * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum([2, 3, 4], keepdim=True) + DEMODULATION_EPSILON).rsqrt()
    if input_gain is not None:
        w = w * input_gain.to(x.dtype).expand(n, c)[:, None, :, None, None]
    if not flip_weight:
        w = w.flip([3, 4])

    f_up, f_down = (resample_filter if factor > 1 else None for factor in (up, down))
    padding = resampling_padding(padding, filter_taps(resample_filter), up, down)
    y = upfirdn2d(x, f_up, (up, up), (1, 1), padding, False, float(up * up))
    y = torch.cat([F.conv2d(y[i : i + 1], w[i]) for i in range(n)]) if n else F.conv2d(y, w.sum(0))
    y = upfirdn2d(y, f_down, (1, 1), (down, down), (0, 0, 0, 0), False, 1.0)

    if noise is not None:
        y = y + noise.to(y.dtype)
    return bias_act(y, bias, 1, *activation)


def epilogue(
    x: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """bias_act(x * scale[n, c] + noise + b): all that follows the convolution."""
    y = scaled(x.to(compute_dtype(x.dtype)), scale)
    if noise is not None:
        y = y + noise.to(y.dtype)
    return bias_act(y, b, 1, act, alpha, gain, clamp).to(x.dtype)


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """x * scale[n, c]."""
    return x if scale is None else x * scale[:, :, None, None].to(x.dtype)
