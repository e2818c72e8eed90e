"""upfirdn2d: public function and helpers, shapes and gradient."""

from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .._backend import call
from ..reference import upfirdn2d as reference
from ._library import Operator, new_image, register


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | list[int] = 1,
    down: int | list[int] = 1,
    padding: int | list[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Upsample by zeros, pad, apply a FIR filter, downsample.

    Each sample is followed by up-1 zeros (the last one, too); the upsampled image is padded with zeros, or cropped
    where padding is negative; convolved with f; and every down-th sample is kept. No zero is ever multiplied.

    Args:
        x: ``[N, C, H, W]``, float16, bfloat16, float32 or float64; contiguous and channels_last are both fast.
        f: filter, float32: ``[taps]`` (separable, used on both axes), ``[height, width]``, or None (identity).
        up: upsampling factor, an int or ``[x, y]``.
        down: downsampling factor, an int or ``[x, y]``.
        padding: in the upsampled image: an int, ``[x, y]`` or ``[x_before, x_after, y_before, y_after]``.
        flip_filter: False convolves, True correlates.
        gain: factor of the result.

    Returns:
        ``[N, C, H', W']`` of x's dtype and memory format, ``H' = (H*up + before + after - height + down) // down``.
        Differentiable to any order in x; f is never differentiated.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: Karras et al., "Alias-Free Generative Adversarial Networks" (2021), appendix G, and the StyleGAN2 paper.
    """
    _checks.image("x", x)
    f = _checks.fir_filter("f", f, x)
    ups, downs, pads = _checks.factors("up", up), _checks.factors("down", down), _checks.padding(padding)
    _checks.boolean("flip_filter", flip_filter)
    gain = _checks.number("gain", gain)
    _checks.output_size("an output", *output_size(x, f, ups, downs, pads), x)
    y: Tensor = call("upfirdn2d", x, f, ups, downs, pads, flip_filter, gain)
    return y


def setup_filter(
    f: Tensor | list[float] | list[list[float]] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Make a filter for :func:`upfirdn2d`: a new float32 tensor; the caller's f is never changed.

    Args:
        f: taps: a number, a list, ``[taps]`` or ``[height, width]``; None is the identity.
        device: where the filter is put.
        normalize: divide by the sum of the taps, so that a constant image keeps its value.
        flip_filter: reverse the taps.
        gain: factor of the filter's response; 1-D taps are multiplied by its square root, since they act twice.
        separable: keep 1-D taps 1-D. Default: from 8 taps on; shorter ones become their outer product.

    Raises:
        ValueError: f is empty or has more than two dimensions, or separable=True comes with a 2-D f.
    """
    return reference.setup_filter(f, device, normalize, flip_filter, gain, separable)


def filter2d(
    x: Tensor, f: Tensor | None, padding: int | list[int] = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Filter an image, keeping its size: :func:`upfirdn2d` with f centred. padding is relative to that size."""
    width, height = filter_taps(_checks.fir_filter("f", f, _checks.image("x", x)))
    pads = _add(padding, (width // 2, (width - 1) // 2, height // 2, (height - 1) // 2))
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: int | list[int] = 2,
    padding: int | list[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Upsample an image to ``[N, C, H*up, W*up]`` with f centred, keeping its brightness (gain * up_x * up_y)."""
    width, height = filter_taps(_checks.fir_filter("f", f, _checks.image("x", x)))
    ux, uy = _checks.factors("up", up)
    pads = _add(padding, ((width + ux - 1) // 2, (width - ux) // 2, (height + uy - 1) // 2, (height - uy) // 2))
    return upfirdn2d(x, f, up=[ux, uy], padding=pads, flip_filter=flip_filter, gain=gain * ux * uy)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: int | list[int] = 2,
    padding: int | list[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Downsample an image to ``[N, C, H/down, W/down]`` with f centred."""
    width, height = filter_taps(_checks.fir_filter("f", f, _checks.image("x", x)))
    dx, dy = _checks.factors("down", down)
    pads = _add(padding, ((width - dx + 1) // 2, (width - dx) // 2, (height - dy + 1) // 2, (height - dy) // 2))
    return upfirdn2d(x, f, down=[dx, dy], padding=pads, flip_filter=flip_filter, gain=gain)


def filter_taps(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter; None is the identity, one tap."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def output_size(
    x: Tensor, f: Tensor | None, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, ...]
) -> tuple[int, int]:
    """(height, width) of upfirdn2d's result."""
    width, height = filter_taps(f)
    x0, x1, y0, y1 = padding
    return (
        (x.shape[2] * up[1] + y0 + y1 - height + down[1]) // down[1],
        (x.shape[3] * up[0] + x0 + x1 - width + down[0]) // down[0],
    )


def _add(padding: int | list[int], centre: tuple[int, int, int, int]) -> list[int]:
    return [p + c for p, c in zip(_checks.padding(padding), centre, strict=True)]


def _fake(x: Tensor, f: Tensor | None, up: Any, down: Any, padding: Any, flip_filter: bool, gain: float) -> Tensor:
    return new_image(x, *output_size(x, f, up, down, padding))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, ctx.up, ctx.down, padding, ctx.flip_filter, ctx.gain = inputs
    ctx.save_for_backward(f)
    # The gradient upsamples by down and downsamples by up; its padding gives back x's size, sample by sample.
    width, height = filter_taps(f)
    (ux, uy), (dx, dy), (x0, _, y0, _) = ctx.up, ctx.down, padding
    ctx.padding = [
        width - x0 - 1,
        x.shape[3] * ux - output.shape[3] * dx + x0 - ux + 1,
        height - y0 - 1,
        x.shape[2] * uy - output.shape[2] * dy + y0 - uy + 1,
    ]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (f,) = ctx.saved_tensors
    dx = call("upfirdn2d", dy, f, ctx.down, ctx.up, ctx.padding, not ctx.flip_filter, ctx.gain)
    return dx, None, None, None, None, None, None


register(
    Operator(
        "upfirdn2d",
        "(Tensor x, Tensor? f, SymInt[] up, SymInt[] down, SymInt[] padding, bool flip_filter, float gain) -> Tensor",
        reference.upfirdn2d,
        _fake,
        _setup_context,
        _backward,
    )
)
