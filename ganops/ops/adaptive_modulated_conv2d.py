"""adaptive_modulated_conv2d: public function; the gradient is that of its parts."""

from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from .._weight_gradients import skippable
from ..reference.adaptive_modulated_conv2d import adaptive_modulated_conv2d as reference
from ..reference.bias_act import compute_dtype
from ..reference.modulated_conv2d import DEMODULATION_EPSILON, PRENORMALIZERS, scaled
from ._convolution import Geometry, needs_graph
from ._mixed_convolution import mixed_convolution, mixed_weight
from .filter_energy import filter_energy
from .modulated_conv2d import check_per_sample, convolve_and_finish, parse_options


def adaptive_modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    logits: Tensor,
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
    """Mix each sample's weights out of a bank, then convolve as :func:`modulated_conv2d` does with ``styles + 1``.

    ``w[n] = sum_k softmax(logits[n])[k] * weight[k]``, modulated to ``w[n,o,i] * (styles[n,i] + 1)`` and demodulated
    per (n, o). One sample's weights exist at a time, in gradients of any order, too. Mixing them costs as much as K
    pixels of output; to convolve with each filter and mix the results would cost K convolutions.

    Args:
        x: ``[N, I, H, W]``, float16, bfloat16, float32 or float64.
        weight: the bank, ``[K, O, I, kh, kw]``, any of these dtypes.
        styles: ``[N, I]``; 0 leaves a channel as it is.
        logits: ``[N, K]``.
        prenormalize: as in modulated_conv2d; "max" and "rms" take one norm per output channel of the whole bank.
        demodulate, noise, up, down, padding, resample_filter, flip_weight, input_gain, bias, act, alpha, gain, clamp:
            as in modulated_conv2d.

    Returns:
        ``[N, O, H', W']`` of x's dtype (under autocast: autocast's) and memory format. Differentiable to any order in
        x, weight, styles, logits, noise, input_gain and bias.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.

    Source: Kang et al., "Scaling up GANs for Text-to-Image Synthesis" (GigaGAN, 2023), section 3.1.
    """
    _checks.image("x", x)
    weight = _check_bank(x, weight)
    styles = check_per_sample("styles", styles, x, x.shape[1], "channels")
    logits = check_per_sample("logits", logits, x, weight.shape[0], "filters of weight")
    x, args = parse_options(
        *(x, weight, demodulate, prenormalize, noise, up, down, padding, resample_filter, flip_weight, input_gain),
        *(bias, act, alpha, gain, clamp),
    )
    weight = skippable(weight)
    y: Tensor
    if _backend.is_reference():
        y = _backend.run_reference(reference, x, weight, styles, logits, *args)
    else:
        y = _backend.without_autocast(_adaptive_modulated_conv2d, x.device, x, weight, styles, logits, *args)
    return y


def _adaptive_modulated_conv2d(
    x: Tensor,
    bank: Tensor,
    styles: Tensor,
    logits: Tensor,
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
    """Scale the input, convolve each sample with its mixture, finish in one pass."""
    dtype = compute_dtype(x.dtype)
    bank, styles, mix = bank.to(dtype), styles.to(dtype) + 1, logits.to(dtype).softmax(1)
    if demodulate and prenormalize != "none":
        bank, styles = PRENORMALIZERS[prenormalize](bank, styles)
    scale = None
    if demodulate:
        scale = (mixed_energy(bank, mix, styles.square()) + DEMODULATION_EPSILON).rsqrt()
    if input_gain is not None:
        styles = styles * input_gain.to(dtype)

    def convolve(x: Tensor, bank: Tensor, geometry: Geometry) -> Tensor:
        return mixed_convolution(scaled(x, styles), bank, mix, geometry)

    graph = needs_graph(x, bank, styles, mix, noise, bias)
    resampling = (up, down, padding, f, flip_weight)
    return convolve_and_finish(convolve, x, bank, graph, resampling, scale, noise, bias, activation).to(x.dtype)


def mixed_energy(bank: Tensor, mix: Tensor, square_styles: Tensor) -> Tensor:
    """[N, O]: the sum over inputs and taps of (mixed weight * style)^2, never with all samples' weights at once."""
    if needs_graph(bank, mix, square_styles) or torch.compiler.is_compiling() or mix.shape[0] > bank.shape[0]:
        return energy_by_gram(bank, mix, square_styles)
    return energy_by_sample(bank, mix, square_styles)


def energy_by_gram(bank: Tensor, mix: Tensor, square_styles: Tensor) -> Tensor:
    """From the filters' products with one another, which all samples share: differentiable as it stands."""
    taps = bank.flatten(3).permute(1, 2, 0, 3)
    gram = (taps @ taps.mT).flatten(2)
    pairs = (mix[:, :, None] * mix[:, None, :]).flatten(1)
    energy = torch.einsum("nk,nok->no", pairs, torch.einsum("ni,oik->nok", square_styles, gram))
    return energy.clamp_min(0)  # filters that cancel one another leave a rounding error of either sign


def energy_by_sample(bank: Tensor, mix: Tensor, square_styles: Tensor) -> Tensor:
    """From each sample's weights in turn: quicker for few samples, but a graph would keep all those weights."""
    energy = square_styles.new_empty(mix.shape[0], bank.shape[1])
    for n in range(mix.shape[0]):
        energy[n] = filter_energy(mixed_weight(bank, mix[n])) @ square_styles[n]
    return energy


def _check_bank(x: Tensor, value: Any) -> Tensor:
    weight = _checks.tensor("weight", value)
    channels = x.shape[1]
    if weight.ndim != 5 or weight.shape[2] != channels or 0 in weight.shape:
        wanted = f"[K, O, {channels}, kh, kw] (x has {channels} channels)"
        raise ValueError(f"weight must have shape {wanted}, got {list(weight.shape)}")
    _checks.same_device("weight", weight, x)
    return weight
