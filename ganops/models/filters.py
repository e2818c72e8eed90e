"""FIR low-pass filters of StyleGAN3, designed in float64: Kaiser-windowed sinc, and its radial counterpart (jinc).

Source: Karras et al., "Alias-Free Generative Adversarial Networks" (2021), appendix C; Kaiser, "Nonrecursive digital
filter design using the I0-sinh window function" (1974), for the window.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import _checks


def kaiser_attenuation(taps: int, width: float) -> float:
    """Attenuation in dB that a filter of ``taps`` taps reaches with a transition band of ``width`` times pi."""
    return 2.285 * (taps - 1) * math.pi * width + 7.95


def kaiser_beta(attenuation: float) -> float:
    """The Kaiser window's shape for an attenuation in dB."""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return float(0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21))
    return 0.0


def lowpass(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    """A separable low-pass filter: sinc under a Kaiser window.

    Args:
        taps: number of taps, at least 1.
        cutoff: frequency of half amplitude, in (0, rate / 2), in the unit of ``rate`` (cycles per image, say).
        width: width of the transition band around it, > 0.
        rate: sampling rate.

    Returns:
        ``[taps]``, float64, of sum 1.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.
    """
    distance, window = _design(taps, cutoff, width, rate)
    f = torch.sinc(2 * cutoff * distance) * window
    return f / f.sum()


def radial_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    """A low-pass filter whose pass band is a disc, under a square Kaiser window: ``J1(2 pi cutoff r) / (pi r)``.

    Args:
        taps, cutoff, width, rate: as in :func:`lowpass`.

    Returns:
        ``[taps, taps]``, float64, of sum 1.

    Raises:
        TypeError, ValueError: a bad argument; the text names it.
    """
    distance, window = _design(taps, cutoff, width, rate)
    radius = torch.hypot(distance[:, None], distance)
    centre = radius == 0
    radius = radius.masked_fill(centre, 1)
    jinc = torch.special.bessel_j1(2 * math.pi * cutoff * radius) / (math.pi * radius)
    f: Tensor = jinc.masked_fill(centre, cutoff) * window[:, None] * window
    return f / f.sum()


def _design(taps: int, cutoff: float, width: float, rate: float) -> tuple[Tensor, Tensor]:
    """Distances of the taps from the centre, in the inverse unit of ``rate``, and the window."""
    taps = _checks.integer("taps", taps, 1)
    cutoff, width, rate = _checks.number("cutoff", cutoff), _checks.number("width", width), _checks.number("rate", rate)
    if not 0 < cutoff < rate / 2:
        raise ValueError(f"cutoff must be in (0, rate / 2) = (0, {rate / 2}), got {cutoff}")
    if width <= 0:
        raise ValueError(f"width must be positive, got {width}")
    beta = kaiser_beta(kaiser_attenuation(taps, width / (rate / 2)))
    distance = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    return distance, torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
