"""``op.upfirdn2d``."""

from collections.abc import Sequence

from torch import Tensor

import ganops
from ganops.compat._arguments import taps


def upfirdn2d(
    input: Tensor,
    kernel: Tensor,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: int | Sequence[int] = (0, 0),
) -> Tensor:
    """``pad`` is (before, after) for both axes, or (x_before, x_after, y_before, y_after)."""
    pads = [pad] * 2 if isinstance(pad, int) else list(pad)
    pads = pads * 2 if len(pads) == 2 else pads
    return ganops.upfirdn2d(input, taps(kernel), _factors(up), _factors(down), pads)


def upfirdn2d_native(
    input: Tensor,
    kernel: Tensor,
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    pad_x0: int,
    pad_x1: int,
    pad_y0: int,
    pad_y1: int,
) -> Tensor:
    return ganops.upfirdn2d(input, taps(kernel), [up_x, up_y], [down_x, down_y], [pad_x0, pad_x1, pad_y0, pad_y1])


def _factors(value: int | Sequence[int]) -> int | list[int]:
    return value if isinstance(value, int) else list(value)
