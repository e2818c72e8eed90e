"""``torch_utils.ops.upfirdn2d``."""

from typing import Any

import torch
from torch import Tensor

import ganops
from ganops import _checks
from ganops.compat._arguments import implementation, taps

Sizes = int | list[int]


def _init() -> bool:
    """There is nothing to compile."""
    return True


def _parse_scaling(scaling: Sizes) -> tuple[int, int]:
    return _checks.factors("scaling", scaling)


def _parse_padding(padding: Sizes) -> tuple[int, int, int, int]:
    return _checks.padding(padding)


def _get_filter_size(f: Tensor | None) -> tuple[int, int]:
    """(width, height)."""
    return (1, 1) if f is None else (int(f.shape[-1]), int(f.shape[0]))


def setup_filter(
    f: Any,
    device: torch.device | str = torch.device("cpu"),  # noqa: B008
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    return ganops.setup_filter(f, device, normalize, flip_filter, float(gain), separable)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Sizes = 1,
    down: Sizes = 1,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    with implementation(impl):
        return ganops.upfirdn2d(x, taps(f), up, down, padding, bool(flip_filter), float(gain))


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    with implementation(impl):
        return ganops.filter2d(x, taps(f), padding, bool(flip_filter), float(gain))


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Sizes = 2,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    with implementation(impl):
        return ganops.upsample2d(x, taps(f), up, padding, bool(flip_filter), float(gain))


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Sizes = 2,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    with implementation(impl):
        return ganops.downsample2d(x, taps(f), down, padding, bool(flip_filter), float(gain))
