"""``torch_utils.ops.conv2d_gradfix``: convolutions with gradients of any order, as torch's own have today.

What is left of it is :func:`no_weight_gradients`, which asks when the backward pass runs.
"""

import contextlib
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

import ganops
from ganops._weight_gradients import skippable

enabled = False  # set by training loops; both states are the same here
weight_gradients_disabled = False

Sizes = int | tuple[int, ...] | list[int]


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    global weight_gradients_disabled
    before = weight_gradients_disabled
    weight_gradients_disabled = weight_gradients_disabled or bool(disable)
    try:
        with ganops.no_weight_gradients(bool(disable)):
            yield
    finally:
        weight_gradients_disabled = before


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    return F.conv2d(input, skippable(weight), bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    return F.conv_transpose2d(
        input,
        skippable(weight),
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )
