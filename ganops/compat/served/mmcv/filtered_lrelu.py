"""``mmcv.ops.filtered_lrelu``."""

import math

from torch import Tensor

from ganops.compat._arguments import impl_of
from ganops.compat.served.nvlabs.filtered_lrelu import filtered_lrelu as _filtered_lrelu
from ganops.compat.served.nvlabs.upfirdn2d import Sizes


def filtered_lrelu(
    input: Tensor,
    filter_up: Tensor | None = None,
    filter_down: Tensor | None = None,
    bias: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Sizes = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    use_custom_op: bool = True,
) -> Tensor:
    impl = impl_of(use_custom_op)
    return _filtered_lrelu(
        input, filter_up, filter_down, bias, up, down, padding, gain, slope, clamp, flip_filter, impl
    )
