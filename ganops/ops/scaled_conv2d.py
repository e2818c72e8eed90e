"""scaled_conv2d: the convolution inside modulated_conv2d as one operator, and its gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._backend import call
from .._formats import memory_format
from .._weight_gradients import weight_gradients_disabled
from ..reference import scaled_conv2d as reference
from ..reference.bias_act import compute_dtype, keeps
from ..reference.modulated_conv2d import scaled
from . import _convolution
from ._convolution import Geometry, needs_graph
from ._library import Operator, register
from .bias_act import slope, sum_to_bias

Padding = tuple[int, int, int, int]
LINEAR = ("linear", 0.0, 1.0, -1.0)


def convolve(
    x: Tensor, weight: Tensor, x_scale: Tensor | None, y_scale: Tensor | None, up: int, down: int, padding: Padding
) -> Tensor:
    """The operator without noise, bias and activation."""
    y: Tensor = call("scaled_conv2d", x, weight, x_scale, y_scale, None, None, up, down, padding, *LINEAR)
    return y


def _output_size(x: Tensor, weight: Tensor, up: int, down: int, padding: Padding) -> tuple[int, int]:
    x0, x1, y0, y1 = padding
    height, width = weight.shape[2:]
    return (x.shape[2] * up + y0 + y1 - height) // down + 1, (x.shape[3] * up + x0 + x1 - width) // down + 1


def _fake(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor | None,
    y_scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Padding,
    *activation: Any,
) -> Tensor:
    size = (x.shape[0], weight.shape[0], *_output_size(x, weight, up, down, padding))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _transposed_padding(x: Tensor, y: Tensor, weight: Tensor, up: int, down: int, padding: Padding) -> Padding:
    """The padding with which the transposed convolution, from images like y, makes images like x."""
    before = [taps - 1 - pad for taps, pad in zip(weight.shape[:1:-1], padding[::2], strict=True)]
    after = [
        (x.shape[axis] - 1) * up + weight.shape[axis] - y.shape[axis] * down - pad
        for axis, pad in zip((3, 2), before, strict=True)
    ]
    return before[0], after[0], before[1], after[1]


def _transposed(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).flip([2, 3])


def weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, up: int, down: int, padding: Padding) -> Tensor:
    """The gradient in ``weight`` of the convolution, by torch's own, which skips inserted zeros, too."""
    if up > 1 and down > 1:
        x = call("upfirdn2d", x, None, (up, up), (1, 1), (0, 0, 0, 0), False, 1.0)
        up = 1
    if up > 1:
        # The transposed convolution takes dy to x with this stride, and has the same weight.
        transposed, padding = _transposed(weight), _transposed_padding(x, dy, weight, up, down, padding)
        return _transposed(weight_gradient(dy, x, transposed, 1, up, padding))
    x0, x1, y0, y1 = padding
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return _convolution.weight_gradient(dy, x, weight, Geometry(down, (y0, x0)))
    return _convolution.weight_gradient(dy, F.pad(x, padding), weight, Geometry(down))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, x_scale, y_scale, noise, b, ctx.up, ctx.down, ctx.padding, *activation = inputs
    act, alpha, _, clamp = ctx.activation = tuple(activation)
    ctx.is_linear = act == "linear" and clamp < 0
    ctx.keeps_y = keeps(act, alpha) == "y"
    ctx.noise_shape = None if noise is None else noise.shape
    ctx.dtypes = [None if t is None else t.dtype for t in inputs[:6]]
    ctx.save_for_backward(
        x,
        weight,
        x_scale,
        y_scale,
        None if ctx.keeps_y else noise,
        None if ctx.keeps_y else b,
        output if ctx.keeps_y and not ctx.is_linear else None,
    )


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, x_scale, y_scale, noise, b, y = ctx.saved_tensors
    geometry = ctx.up, ctx.down, ctx.padding
    needs_x, needs_weight, needs_x_scale, needs_y_scale, needs_noise, needs_b = ctx.needs_input_grad[:6]
    # The convolution alone is not kept: whoever needs it often keeps it apart from what follows (modulated_conv2d).
    unscaled = convolve(x, weight, x_scale, None, *geometry) if needs_y_scale or not ctx.keeps_y else None
    if ctx.is_linear:
        du = dy * ctx.activation[2]
    elif ctx.keeps_y:
        du = slope(dy, y, None, 1, ctx.activation, order=1)
    else:
        assert unscaled is not None
        u = scaled(unscaled, y_scale)
        u = u if noise is None else u + noise.to(u.dtype)
        du = slope(dy, u, None if b is None else b.to(u.dtype), 1, ctx.activation, order=1)

    grads: list[Tensor | None] = [None] * 6
    padding = _transposed_padding(x, dy, weight, *geometry)
    if needs_x_scale:
        dx = convolve(du, _transposed(weight), y_scale, None, ctx.down, ctx.up, padding)
        grads[0], grads[2] = scaled(dx, x_scale), (dx * x).sum([2, 3])
    elif needs_x:
        grads[0] = convolve(du, _transposed(weight), y_scale, x_scale, ctx.down, ctx.up, padding)
    if needs_weight and not weight_gradients_disabled():
        # A CPU multiplies float32 faster than 16-bit data.
        dtype = compute_dtype(x.dtype) if x.device.type == "cpu" else x.dtype
        operands = scaled(x.to(dtype), x_scale), scaled(du.to(dtype), y_scale)
        grads[1] = weight_gradient(*operands, weight.to(dtype), *geometry)
    if needs_y_scale and unscaled is not None:
        grads[3] = (du * unscaled).sum([2, 3])
    if needs_noise:
        grads[4] = du.sum([0, 1] if ctx.noise_shape[0] == 1 else [1]).reshape(ctx.noise_shape)
    if needs_b:
        grads[5] = sum_to_bias(du, 1)
    typed = [None if g is None else g.to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True)]
    return (*typed, None, None, None, None, None, None, None)


def resampled_scaled_conv2d(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor,
    y_scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Padding,
    f: Tensor | None,
    *activation: Any,
) -> Tensor:
    """The operator after a resampling filter for ``down``, or before one for ``up``; padding includes the filter's.

    Without a gradient all that has no filter in between is one kernel. With one, what follows the convolution is
    another operator, which keeps the convolution: the gradient in y_scale needs it.
    """
    inputs = (x, weight, x_scale, y_scale, noise, b)
    keeps = needs_graph(*inputs)
    y: Tensor
    if weight.shape[2:] == (1, 1) and (up > 1 or down > 1):
        # A pointwise convolution commutes with resampling: it runs where the image is smaller.
        if up > 1:
            y = convolve(x, weight, x_scale, None, 1, 1, (0, 0, 0, 0))
            y = call("upfirdn2d", y, f, (up, up), (1, 1), padding, False, float(up * up))
            y = call("modulated_conv2d_epilogue", y, y_scale, noise, b, *activation)
            return y
        x = call("upfirdn2d", x, f, (1, 1), (down, down), padding, False, 1.0)
        down, padding = 1, (0, 0, 0, 0)
    if up > 1:
        # All outputs that any input reaches; the filter crops or pads them.
        height, width = weight.shape[2:]
        x0, x1, y0, y1 = padding
        full = (width - 1, width - up, height - 1, height - up)
        crop = (x0 - width + 1, x1 - width + up, y0 - height + 1, y1 - height + up)
        y = convolve(x, weight, x_scale, None if keeps else y_scale, up, 1, full)
        y = call("upfirdn2d", y, f, (1, 1), (1, 1), crop, False, float(up * up))
        y_scale = y_scale if keeps else None
    else:
        if down > 1:
            x, padding = call("upfirdn2d", x, f, (1, 1), (1, 1), padding, False, 1.0), (0, 0, 0, 0)
        if not keeps:
            y = call("scaled_conv2d", x, *inputs[1:], 1, down, padding, *activation)
            return y
        y = convolve(x, weight, x_scale, None, 1, down, padding)
    y = call("modulated_conv2d_epilogue", y, y_scale, noise, b, *activation)
    return y


register(
    Operator(
        "scaled_conv2d",
        "(Tensor x, Tensor weight, Tensor? x_scale, Tensor? y_scale, Tensor? noise, Tensor? b, SymInt up, SymInt down, "
        "SymInt[] padding, str act, float alpha, float gain, float clamp) -> Tensor",
        reference.scaled_conv2d,
        _fake,
        _setup_context,
        _backward,
    )
)
