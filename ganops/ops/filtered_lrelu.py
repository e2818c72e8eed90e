"""filtered_lrelu: public function, shapes and gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from .._backend import autocast_dtype, call
from ..reference import filtered_lrelu as reference
from ._library import Operator, new_image, register
from .bias_act import sum_to_bias
from .upfirdn2d import filter_taps


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | list[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    """StyleGAN3's nonlinearity: a leaky ReLU applied at a higher sampling rate, in one pass.

    Adds the bias; upsamples by ``up`` (zeros, padding in the upsampled image, filter fu, times up**2); multiplies by
    gain; applies the leaky ReLU; clamps; filters with fd and keeps every ``down``-th sample. The upsampled image never
    reaches memory. For training, 2 bits are kept of each of its samples.

    Args:
        x: ``[N, C, H, W]``, float16, bfloat16, float32 or float64; contiguous and channels_last are both fast.
        fu: upsampling filter, float32: ``[taps]`` (separable), ``[height, width]``, or None (identity).
        fd: downsampling filter, likewise.
        b: bias ``[C]`` of x's dtype, or None.
        up: upsampling factor.
        down: downsampling factor.
        padding: in the upsampled image: an int, ``[x, y]`` or ``[x_before, x_after, y_before, y_after]``.
        gain: factor before the leaky ReLU.
        slope: slope for negative values; by the sign bit, so that +0 has slope 1.
        clamp: bound of the magnitude after the leaky ReLU, >= 0, or None. NaN stays NaN.
        flip_filter: False convolves, True correlates, with both filters.

    Returns:
        ``[N, C, H', W']`` of x's dtype and memory format,
        ``H' = (H*up + before + after - (fu_taps-1) - (fd_taps-1) + down-1) // down``. Differentiable to any order in x
        and b; the gradient is zero where the clamp took hold.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: Karras et al., "Alias-Free Generative Adversarial Networks" (2021), section 3.2 and appendix D.
    """
    _checks.image("x", x)
    fu, fd = _checks.fir_filter("fu", fu, x), _checks.fir_filter("fd", fd, x)
    up, down = _checks.integer("up", up, 1), _checks.integer("down", down, 1)
    pads = _checks.padding(padding)
    gain, slope = _checks.number("gain", gain), _checks.number("slope", slope)
    clamp = _checks.clamp(clamp)
    _checks.boolean("flip_filter", flip_filter)
    if b is not None:
        if autocast_dtype(x.device) and isinstance(b, Tensor):
            b = b.to(x.dtype)
        _checks.vector("b", b, x, x.shape[1], "x's channels")
    _checks.output_size("an upsampled image", *upsampled_size(x, fu, up, pads), x)
    _checks.output_size("an output", *output_size(x, fu, fd, up, down, pads), x)

    args = (fu, fd, b, up, down, pads, gain, slope, clamp, flip_filter)
    y: Tensor
    if _backend.is_reference():
        y = _backend.run_reference(reference.filtered_lrelu, x, *args)
    else:
        training = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
        y = call("filtered_lrelu", x, *args, training)[0]
    return y


def upsampled_size(x: Tensor, fu: Tensor | None, up: int, padding: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the image on which the leaky ReLU works."""
    width, height = filter_taps(fu)
    x0, x1, y0, y1 = padding
    return x.shape[2] * up + y0 + y1 - (height - 1), x.shape[3] * up + x0 + x1 - (width - 1)


def output_size(
    x: Tensor, fu: Tensor | None, fd: Tensor | None, up: int, down: int, padding: tuple[int, ...]
) -> tuple[int, int]:
    """(height, width) of filtered_lrelu's result."""
    width, height = filter_taps(fd)
    upsampled_height, upsampled_width = upsampled_size(x, fu, up, padding)
    return (upsampled_height - height + down) // down, (upsampled_width - width + down) // down


def _reference_with_codes(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Any,
    gain: float,
    slope: float,
    clamp: float,
    flip_filter: bool,
    save_codes: bool,
) -> tuple[Tensor, Tensor]:
    y = reference.filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter)
    if not save_codes:
        return y, x.new_empty(0, dtype=torch.uint8)
    return y, reference.filtered_lrelu_codes(x, fu, b, up, padding, gain, slope, clamp, flip_filter)


def _fake(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Any,
    gain: float,
    slope: float,
    clamp: float,
    flip_filter: bool,
    save_codes: bool,
) -> tuple[Tensor, Tensor]:
    height, width = upsampled_size(x, fu, up, padding)
    bytes_per_row = (width + reference.SAMPLES_PER_BYTE - 1) // reference.SAMPLES_PER_BYTE
    codes_shape = (x.shape[0], x.shape[1], height, bytes_per_row) if save_codes else (0,)
    y = new_image(x, *output_size(x, fu, fd, up, down, padding))
    return y, x.new_empty(codes_shape, dtype=torch.uint8)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, fu, fd, _, up, down, padding, gain, slope, _, flip_filter, save_codes = inputs
    y, codes = output
    ctx.mark_non_differentiable(codes)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(fu, fd, codes if save_codes else None)
    ctx.codes_width = upsampled_size(x, fu, up, padding)[1]
    _save_transpose(ctx, x, y, fu, fd, (0, 0), up, down, padding, gain, slope, flip_filter)


def _save_transpose(
    ctx: Any,
    x: Tensor,
    y: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    offset: Any,
    up: int,
    down: int,
    padding: Any,
    gain: float,
    slope: float,
    flip_filter: bool,
) -> None:
    """The arguments of the transposed map, which is filtered_lrelu_grad with up and down, fu and fd swapped.

    Sample i of x reaches samples i*up + before - (fu-1) ... i*up + before of the upsampled image, so that the
    transposed map's upsampled image starts there: its padding and its offset into the codes follow.
    """
    (fu_width, fu_height), (fd_width, fd_height) = filter_taps(fu), filter_taps(fd)
    starts, pads = [], []
    for before, fu_taps, fd_taps, size_in, size_out in (
        (padding[0], fu_width, fd_width, x.shape[3], y.shape[3]),
        (padding[2], fu_height, fd_height, x.shape[2], y.shape[2]),
    ):
        start = before - (fu_taps - 1)
        total = (size_in - 1) * up + 1 - size_out * down + (fu_taps - 1) + (fd_taps - 1)
        starts.append(start)
        pads += [fd_taps - 1 - start, total - (fd_taps - 1 - start)]
    ctx.transposed = (
        [offset[0] + starts[0], offset[1] + starts[1]],
        down,
        up,
        pads,
        gain * up * up / (down * down),
        slope,
        not flip_filter,
    )


def _transposed(ctx: Any, dy: Tensor, fu: Tensor | None, fd: Tensor | None, codes: Tensor) -> Tensor:
    dx: Tensor = call("filtered_lrelu_grad", dy, fd, fu, codes, ctx.codes_width, *ctx.transposed)
    return dx


def _backward(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    fu, fd, codes = ctx.saved_tensors
    if dy is None:
        return (None,) * 12
    if codes is None:
        raise RuntimeError("filtered_lrelu ran with save_codes=False, which keeps nothing for a backward pass")
    dx = _transposed(ctx, dy, fu, fd, codes)
    db = sum_to_bias(dx, 1) if ctx.needs_input_grad[3] else None
    return dx, None, None, db, *(None,) * 8


def _grad_fake(
    x: Tensor, fu: Any, fd: Any, codes: Tensor, codes_width: int, offset: Any, up: int, down: int, padding: Any, *_: Any
) -> Tensor:
    return new_image(x, *output_size(x, fu, fd, up, down, padding))


def _grad_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, fu, fd, codes, ctx.codes_width, *rest = inputs
    ctx.save_for_backward(fu, fd, codes)
    _save_transpose(ctx, x, output, fu, fd, *rest)


def _grad_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return _transposed(ctx, dy, *ctx.saved_tensors), *(None,) * 11


register(
    Operator(
        "filtered_lrelu",
        "(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, SymInt up, SymInt down, SymInt[] padding, float gain, "
        "float slope, float clamp, bool flip_filter, bool save_codes) -> (Tensor y, Tensor codes)",
        _reference_with_codes,
        _fake,
        _setup_context,
        _backward,
    )
)
register(
    Operator(
        "filtered_lrelu_grad",
        "(Tensor x, Tensor? fu, Tensor? fd, Tensor codes, SymInt codes_width, SymInt[] offset, SymInt up, SymInt down, "
        "SymInt[] padding, float gain, float slope, bool flip_filter) -> Tensor",
        reference.filtered_lrelu_grad,
        _grad_fake,
        _grad_setup_context,
        _grad_backward,
    )
)
