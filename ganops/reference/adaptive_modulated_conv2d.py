"""adaptive_modulated_conv2d: each sample mixes its weights out of a bank before they are modulated."""

from typing import Any

import torch
from torch import Tensor

from .bias_act import compute_dtype
from .modulated_conv2d import PRENORMALIZERS, convolve_samples


def adaptive_modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    logits: Tensor,
    demodulate: bool,
    prenormalize: str,
    *args: Any,
) -> Tensor:
    """By definition: weights [K, O, I, kh, kw] become [N, O, I, kh, kw]; the other arguments are modulated_conv2d's."""
    y = x.to(compute_dtype(x.dtype))
    weight, styles = weight.to(y.dtype), styles.to(y.dtype) + 1
    if demodulate and prenormalize != "none":
        weight, styles = PRENORMALIZERS[prenormalize](weight, styles)
    weights = torch.einsum("nk,koiyx->noiyx", logits.to(y.dtype).softmax(1), weight)
    return convolve_samples(y, weights, styles, demodulate, *args).to(x.dtype)
