"""modulated_conv2d: public function; the gradient is that of its parts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks, _cost_model
from .._backend import call
from .._formats import memory_format
from .._weight_gradients import skippable
from ..reference import modulated_conv2d as reference
from ..reference.bias_act import compute_dtype, keeps
from . import _phases, gemm_conv2d, winograd_conv2d
from ._convolution import Geometry, channel_dot, convolution, needs_graph, scaled_convolution, torch_dtype
from ._library import Operator, register, register_composed
from .bias_act import for_dtype, is_identity, parse_activation, slope, sum_to_bias
from .filter_energy import filter_energy
from .scaled_conv2d import resampled_scaled_conv2d
from .upfirdn2d import filter_taps

_IN_PLACE = "modulated_conv2d_epilogue_"
PRENORMALIZE = ("auto", "none", "max", "rms")


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    prenormalize: str = "auto",
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | list[int] = 0,
    resample_filter: Tensor | None = None,
    flip_weight: bool = True,
    input_gain: Tensor | float | None = None,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Convolve each sample with weights scaled by its styles and demodulated; then noise, bias and activation.

    ``w[n,o,i] = styles[n,i] * weight[o,i]``, demodulated to ``w * rsqrt(sum(w**2) + 1e-8)`` per (n, o). The tensor
    [N, O, I, kh, kw] is never built: styles scale the input, demodulation scales the output, which is the same.

    Args:
        x: ``[N, I, H, W]``, float16, bfloat16, float32 or float64.
        weight: ``[O, I, kh, kw]``, any of these dtypes.
        styles: ``[N, I]``.
        demodulate: normalise the weights of each sample and output channel.
        prenormalize: how weight and styles are brought into range before demodulation (which cancels it, but for its
            epsilon; without demodulation nothing is done): "max" (StyleGAN2: max-norm per output channel and sample),
            "rms" (StyleGAN3: RMS per output channel, and of all styles together), "none", or "auto": "max" for
            float16, whose range is small, else "none".
        noise: ``[N, 1, H', W']``, ``[1, 1, H', W']`` or ``[H', W']``, added to the result.
        up: upsampling factor before the convolution.
        down: downsampling factor after it.
        padding: in the upsampled image, an int, ``[x, y]`` or ``[x_before, x_after, y_before, y_after]``; that of a
            centred resample_filter is added to it.
        resample_filter: FIR filter for up or down, as in :func:`upfirdn2d`; None is the identity.
        flip_weight: True correlates, as torch.nn.functional.conv2d does; False convolves.
        input_gain: further factor of the input, not demodulated: a number, ``[I]`` or ``[N, I]``.
        bias, act, alpha, gain, clamp: as in :func:`bias_act`; bias is ``[O]``.

    Returns:
        ``[N, O, H', W']`` of x's dtype (under autocast: autocast's) and memory format. Differentiable to any order in
        x, weight, styles, noise, input_gain and bias.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), section 2.2, equations 1-3;
    "Alias-Free Generative Adversarial Networks" (2021), appendix E, for "rms" and input_gain.
    """
    _checks.image("x", x)
    weight, styles = _check_weight(x, weight, styles)
    x, args = parse_options(
        *(x, weight, demodulate, prenormalize, noise, up, down, padding, resample_filter, flip_weight, input_gain),
        *(bias, act, alpha, gain, clamp),
    )
    weight = skippable(weight)
    y: Tensor
    if _backend.is_reference():
        y = _backend.run_reference(reference.modulated_conv2d, x, weight, styles, *args)
    else:
        y = _backend.without_autocast(_modulated_conv2d, x.device, x, weight, styles, *args)
    return y


def parse_options(
    x: Tensor,
    weight: Tensor,
    demodulate: Any,
    prenormalize: Any,
    noise: Any,
    up: Any,
    down: Any,
    padding: Any,
    resample_filter: Any,
    flip_weight: Any,
    input_gain: Any,
    bias: Any,
    act: Any,
    alpha: Any,
    gain: Any,
    clamp: Any,
) -> tuple[Tensor, tuple[Any, ...]]:
    """x in the dtype that autocast wants, and the checked options with their defaults filled in."""
    out_channels, _, kernel_height, kernel_width = weight.shape[-4:]
    _checks.boolean("demodulate", demodulate)
    _checks.boolean("flip_weight", flip_weight)
    if prenormalize not in PRENORMALIZE:
        raise ValueError(f"prenormalize must be one of {', '.join(PRENORMALIZE)}, got {prenormalize!r}")
    up, down = _checks.integer("up", up, 1), _checks.integer("down", down, 1)
    pads = _checks.padding(padding)
    f = _checks.fir_filter("resample_filter", resample_filter, x)
    input_gain = _check_input_gain(x, input_gain)
    if bias is not None:
        bias = _checks.vector("bias", bias, x, out_channels, "output channels", same_dtype=False)
    activation = parse_activation(act, alpha, gain, clamp)
    height, width = _output_size(x, (kernel_height, kernel_width), f, up, down, pads)
    _checks.output_size("an output", height, width, x)
    noise = _check_noise(x, noise, height, width)

    reduced = _backend.autocast_dtype(x.device)
    if reduced and x.dtype != torch.float64:
        x = x.to(reduced)
    if prenormalize == "auto":
        prenormalize = "max" if x.dtype == torch.float16 else "none"
    activation = for_dtype(activation, x.dtype)
    return x, (demodulate, prenormalize, noise, up, down, pads, f, flip_weight, input_gain, bias, *activation)


def _modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool,
    prenormalize: str,
    noise: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    f: Tensor | None,
    flip_weight: bool,
    input_gain: Tensor | None,
    bias: Tensor | None,
    *activation: Any,
) -> Tensor:
    """Scale the input, convolve with the one weight that all samples share, finish in one pass."""
    dtype = compute_dtype(x.dtype)
    weight, styles = weight.to(dtype), styles.to(dtype)
    scale = None
    if demodulate:
        weight, styles, scale = _demodulate(weight, styles, prenormalize, x.device)
    if input_gain is not None:
        styles = styles * input_gain.to(dtype)

    pads = reference.resampling_padding(padding, filter_taps(f), up, down)
    skips_zeros = up == 1 or (down == 1 and min(pads) >= 0)
    if skips_zeros and _cost_model.prefers_kernel(x, weight, up, down):
        taps = weight if flip_weight else weight.flip([2, 3])
        return resampled_scaled_conv2d(x, taps, styles, scale, noise, bias, up, down, pads, f, *activation)

    graph = needs_graph(x, weight, styles, noise, bias)
    out_scale = None
    if not graph and up == down == 1 and noise is None and bias is None and is_identity(activation):
        out_scale, scale = scale, None  # which spares a pass over the result

    def convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        if not graph:
            return convolution(x, weight, geometry, styles, out_scale)
        return scaled_convolution(x, weight, styles, geometry)

    resampling = (up, down, padding, f, flip_weight)
    return convolve_and_finish(convolve, x, weight, graph, resampling, scale, noise, bias, activation).to(x.dtype)


def _demodulate(
    weight: Tensor, styles: Tensor, prenormalize: str, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The weight and styles to convolve with, and the scale [N, O] of the result."""
    if prenormalize == "rms" and device.type == "cpu":
        # CPUs multiply float32 or bfloat16, whose range does without: the weight's norm becomes part of the scale.
        energy, tiny = filter_energy(weight), torch.finfo(weight.dtype).tiny
        norm = (energy.sum(1) / weight[0].numel()).clamp_min(tiny).rsqrt()
        styles = styles * styles.square().mean().clamp_min(tiny).rsqrt()
        normal_energy = styles.square() @ energy.t() * norm.square()
        return weight, styles, norm * (normal_energy + reference.DEMODULATION_EPSILON).rsqrt()
    if prenormalize != "none":
        weight, styles = reference.PRENORMALIZERS[prenormalize](weight, styles)
    energy = styles.square() @ filter_energy(weight).t()
    return weight, styles, (energy + reference.DEMODULATION_EPSILON).rsqrt()


def convolve_and_finish(
    convolve: Callable[[Tensor, Tensor, Geometry], Tensor],
    x: Tensor,
    weight: Tensor,
    graph: bool,
    resampling: tuple[Any, ...],
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    activation: tuple[Any, ...],
) -> Tensor:
    """resampled_conv2d and finish, the shortest way there is; graph: whether autograd will need it."""
    up, down, padding, f, flip_weight = resampling
    pads = reference.resampling_padding(padding, filter_taps(f), up, down)
    x = x.to(_work_dtype(x, weight, graph, up, down, pads))
    if not graph and _phases.serves(x, weight, up, down, pads):
        taps = weight if flip_weight else weight.flip([-2, -1])
        return _phases.upsample_and_finish(convolve, x, taps, pads, f, scale, noise, bias, *activation)
    y = resampled_conv2d(convolve, x, weight, *resampling)
    return finish(y, scale, noise, bias, activation, in_place=not graph)


def _work_dtype(
    x: Tensor, weight: Tensor, graph: bool, up: int, down: int, pads: tuple[int, int, int, int]
) -> torch.dtype:
    """In which to convolve: a GPU multiplies 16-bit data in matrix units, a CPU mostly multiplies float32 faster.

    A result rounded to bfloat16 may change its sign, and with it the slope of a leaky ReLU: a gradient needs better.
    """
    if x.device.type != "cpu":
        return x.dtype
    if x.dtype == torch.bfloat16 and not graph:
        is_plain = up == down == 1
        if is_plain and gemm_conv2d.serves(x, weight):
            return x.dtype
        if _phases.serves(x, weight, up, down, pads) and gemm_conv2d.serves(x, weight[..., ::2, ::2]):
            return x.dtype
        beaten = is_plain and winograd_conv2d.beats_bfloat16(x, weight, (pads[2], pads[0]))
        if not beaten:
            return torch_dtype(x)
    return compute_dtype(x.dtype)


def finish(
    y: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    activation: tuple[Any, ...],
    in_place: bool,
) -> Tensor:
    """All that follows the convolution, in one pass, if anything does; in_place: whether y may be overwritten."""
    if scale is None and noise is None and bias is None and is_identity(activation):
        return y
    if in_place and _backend.has_cpu_kernel(_IN_PLACE, y):  # which spares a CPU the pages of a new tensor
        call(_IN_PLACE, y, scale, noise, bias, *activation)
        return y
    result: Tensor = call("modulated_conv2d_epilogue", y, scale, noise, bias, *activation)
    return result


def resampled_conv2d(
    convolve: Callable[[Tensor, Tensor, Geometry], Tensor],
    x: Tensor,
    weight: Tensor,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    f: Tensor | None,
    flip_weight: bool,
) -> Tensor:
    """upfirdn2d up, convolution, upfirdn2d down, reordered where it saves work (filters and convolutions commute)."""
    height, width = weight.shape[-2:]
    x0, x1, y0, y1 = padding = reference.resampling_padding(padding, filter_taps(f), up, down)
    f_up, f_down = (f if factor > 1 else None for factor in (up, down))
    if height == width == 1 and (up == 1) != (down == 1):
        # A pointwise convolution commutes with resampling: it runs where the image is smaller.
        if up > 1:
            return _upfirdn2d(convolve(x, weight, Geometry()), f_up, up, 1, padding, float(up * up))
        return convolve(_upfirdn2d(x, f_down, 1, down, padding, 1.0), weight, Geometry())
    if up > 1 and down == 1 and min(padding) >= 0:
        # A transposed convolution of stride `up` skips the zeros; what it extends beyond the padding is cropped.
        weight = (weight.flip([-2, -1]) if flip_weight else weight).transpose(-4, -3)
        y = convolve(x, weight, Geometry(up, transposed=True))
        crop = (x0 - width + 1, x1 - width + up, y0 - height + 1, y1 - height + up)
        return _upfirdn2d(y, f_up, 1, 1, crop, float(up * up))
    if not flip_weight:
        weight = weight.flip([-2, -1])
    if up == 1 and down > 1:
        return convolve(_upfirdn2d(x, f_down, 1, 1, padding, 1.0), weight, Geometry(down))
    if up == 1 and x0 == x1 >= 0 and y0 == y1 >= 0:
        return convolve(x, weight, Geometry(padding=(y0, x0)))
    y = convolve(_upfirdn2d(x, f_up, up, 1, padding, float(up * up)), weight, Geometry())
    return y if down == 1 else _upfirdn2d(y, f_down, 1, down, (0, 0, 0, 0), 1.0)


def _upfirdn2d(
    x: Tensor, f: Tensor | None, up: int, down: int, padding: tuple[int, int, int, int], gain: float
) -> Tensor:
    y: Tensor = call("upfirdn2d", x, f, (up, up), (down, down), padding, False, gain)
    return y


def _output_size(
    x: Tensor, kernel: tuple[int, int], f: Tensor | None, up: int, down: int, padding: tuple[int, int, int, int]
) -> tuple[int, int]:
    x0, x1, y0, y1 = reference.resampling_padding(padding, filter_taps(f), up, down)
    width, height = filter_taps(f)
    filters = (up > 1) + (down > 1)
    return (
        (x.shape[2] * up + y0 + y1 - filters * (height - 1) - kernel[0] + down) // down,
        (x.shape[3] * up + x0 + x1 - filters * (width - 1) - kernel[1] + down) // down,
    )


def _check_weight(x: Tensor, weight: Any, styles: Any) -> tuple[Tensor, Tensor]:
    weight = _checks.tensor("weight", weight)
    channels = x.shape[1]
    if weight.ndim != 4 or weight.shape[1] != channels or 0 in weight.shape:
        wanted = f"[O, {channels}, kh, kw] (x has {channels} channels)"
        raise ValueError(f"weight must have shape {wanted}, got {list(weight.shape)}")
    _checks.same_device("weight", weight, x)
    return weight, check_per_sample("styles", styles, x, channels, "channels")


def check_per_sample(name: str, value: Any, x: Tensor, length: int, what: str) -> Tensor:
    t = _checks.tensor(name, value)
    if not _checks.has_shape(t, (x.shape[0], length)):
        wanted = f"[{x.shape[0]}, {length}] (x's samples, {what})"
        raise ValueError(f"{name} must have shape {wanted}, got {list(t.shape)}")
    _checks.same_device(name, t, x)
    return t


def _check_input_gain(x: Tensor, value: Any) -> Tensor | None:
    if value is None:
        return None
    if not isinstance(value, Tensor):
        return torch.tensor(_checks.number("input_gain", value), dtype=compute_dtype(x.dtype), device=x.device)
    input_gain = _checks.tensor("input_gain", value)
    n, channels = x.shape[:2]
    if not _checks.has_shape(input_gain, (), (channels,), (n, channels)):
        wanted = f"a number, [{channels}] or [{n}, {channels}]"
        raise ValueError(f"input_gain must be {wanted}, got shape {list(input_gain.shape)}")
    _checks.same_device("input_gain", input_gain, x)
    return input_gain


def _check_noise(x: Tensor, value: Any, height: int, width: int) -> Tensor | None:
    if value is None:
        return None
    noise = _checks.tensor("noise", value)
    n = x.shape[0]
    if not _checks.has_shape(noise, (n, 1, height, width), (1, 1, height, width), (height, width)):
        wanted = f"[{n}, 1, {height}, {width}], [1, 1, {height}, {width}] or [{height}, {width}]"
        raise ValueError(f"noise must have shape {wanted}, got {list(noise.shape)}")
    _checks.same_device("noise", noise, x)
    return noise.reshape(-1, 1, height, width)


def _fake(x: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, noise, b, *activation = inputs
    ctx.activation = tuple(activation)
    act, alpha, _, clamp = ctx.activation
    ctx.is_linear = act == "linear" and clamp < 0
    ctx.keeps_y = keeps(act, alpha) == "y"
    keeps_x = scale is not None or not ctx.keeps_y
    ctx.shapes = tuple(None if t is None else t.shape for t in (noise, b))
    ctx.dtypes = tuple(None if t is None else t.dtype for t in (scale, noise, b))
    ctx.save_for_backward(
        x if keeps_x else None,
        scale,
        output if ctx.keeps_y and not ctx.is_linear else None,
        None if ctx.keeps_y else noise,
        None if ctx.keeps_y else b,
    )


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, y, noise, b = ctx.saved_tensors
    if ctx.is_linear:
        gain = ctx.activation[2]
        du = dy if gain == 1 else dy * gain
    elif ctx.keeps_y:
        du = slope(dy, y, None, 1, ctx.activation, order=1)
    else:
        u = reference.scaled(x, scale)
        u = u if noise is None else u + noise.to(x.dtype)
        du = slope(dy, u, None if b is None else b.to(x.dtype), 1, ctx.activation, order=1)
    dx = reference.scaled(du, scale)
    dscale = dnoise = db = None
    if ctx.needs_input_grad[1]:
        dscale = channel_dot(du, x).to(ctx.dtypes[0])
    if ctx.needs_input_grad[2]:
        dnoise = du.sum([0, 1] if ctx.shapes[0][0] == 1 else [1]).reshape(ctx.shapes[0]).to(ctx.dtypes[1])
    if ctx.needs_input_grad[3]:
        db = sum_to_bias(du, 1).to(ctx.dtypes[2])
    return dx, dscale, dnoise, db, None, None, None, None


def _reference_in_place(x: Tensor, *args: Any) -> None:
    x.copy_(reference.epilogue(x, *args))


_ARGUMENTS = "Tensor? scale, Tensor? noise, Tensor? b, str act, float alpha, float gain, float clamp"
register(
    Operator(
        "modulated_conv2d_epilogue",
        f"(Tensor x, {_ARGUMENTS}) -> Tensor",
        reference.epilogue,
        _fake,
        _setup_context,
        _backward,
    )
)
register_composed(
    Operator(_IN_PLACE, f"(Tensor(a!) x, {_ARGUMENTS}) -> ()", _reference_in_place, lambda x, *args: None)
)
