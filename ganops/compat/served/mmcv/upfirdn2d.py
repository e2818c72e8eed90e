"""``mmcv.ops.upfirdn2d``."""

from torch import Tensor

from ganops.compat._arguments import impl_of
from ganops.compat.served.nvlabs import upfirdn2d as _nvlabs
from ganops.compat.served.nvlabs.upfirdn2d import Sizes, _get_filter_size, _parse_padding, _parse_scaling

__all__ = [
    "_get_filter_size",
    "_parse_padding",
    "_parse_scaling",
    "downsample2d",
    "filter2d",
    "upfirdn2d",
    "upsample2d",
]


def upfirdn2d(
    input: Tensor,
    filter: Tensor | None,
    up: Sizes = 1,
    down: Sizes = 1,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    return _nvlabs.upfirdn2d(input, filter, up, down, padding, flip_filter, gain, impl_of(use_custom_op))


def filter2d(
    input: Tensor,
    filter: Tensor | None,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    return _nvlabs.filter2d(input, filter, padding, flip_filter, gain, impl_of(use_custom_op))


def upsample2d(
    input: Tensor,
    filter: Tensor | None,
    up: Sizes = 2,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    return _nvlabs.upsample2d(input, filter, up, padding, flip_filter, gain, impl_of(use_custom_op))


def downsample2d(
    input: Tensor,
    filter: Tensor | None,
    down: Sizes = 2,
    padding: Sizes = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    return _nvlabs.downsample2d(input, filter, down, padding, flip_filter, gain, impl_of(use_custom_op))
