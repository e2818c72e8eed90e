"""``torch_utils.ops.filtered_lrelu``."""

import math

from torch import Tensor

import ganops
from ganops.compat._arguments import implementation, like, optional_number, taps
from ganops.compat.served.nvlabs.upfirdn2d import Sizes, _get_filter_size, _init, _parse_padding

__all__ = ["_get_filter_size", "_init", "_parse_padding", "filtered_lrelu"]


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Sizes = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> Tensor:
    with implementation(impl):
        return ganops.filtered_lrelu(
            x,
            taps(fu),
            taps(fd),
            like(b, x),
            up,
            down,
            padding,
            float(gain),
            float(slope),
            optional_number(clamp),
            bool(flip_filter),
        )
