"""``torch_utils.ops.conv2d_resample``: a convolution between an upsampling and a downsampling FIR filter.

Filters, convolutions and the insertion of zeros commute where that saves work: a transposed convolution multiplies no
inserted zero, a strided one computes no dropped sample, and a 1x1 convolution runs where the image is smallest.
"""

import torch.nn.functional as F
from torch import Tensor

import ganops
from ganops._weight_gradients import skippable
from ganops.compat._arguments import taps
from ganops.compat.served.nvlabs.upfirdn2d import Sizes, _get_filter_size, _parse_padding
from ganops.reference.modulated_conv2d import resampling_padding


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Sizes = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    f, weight = taps(f), skippable(w)
    height, width = weight.shape[2:]
    x0, x1, y0, y1 = pads = resampling_padding(_parse_padding(padding), _get_filter_size(f), up, down)
    correlated = weight if flip_weight else weight.flip([2, 3])

    def resample(image: Tensor, *, up: int = 1, down: int = 1, filter: Tensor | None, padding: list[int]) -> Tensor:
        return ganops.upfirdn2d(image, filter, up, down, padding, bool(flip_filter), float(up * up))

    if up == 1 and down == 1:
        if x0 == x1 >= 0 and y0 == y1 >= 0:
            return F.conv2d(x, correlated, padding=(y0, x0), groups=groups)
        return F.conv2d(resample(x, filter=None, padding=list(pads)), correlated, groups=groups)
    if height == width == 1 and down == 1:
        return resample(F.conv2d(x, correlated, groups=groups), up=up, filter=f, padding=list(pads))
    if height == width == 1 and up == 1:
        return F.conv2d(resample(x, down=down, filter=f, padding=list(pads)), correlated, groups=groups)
    if up == 1:
        return F.conv2d(resample(x, filter=f, padding=list(pads)), correlated, stride=down, groups=groups)
    if min(pads) >= 0:
        y = F.conv_transpose2d(x, _transposed(correlated.flip([2, 3]), groups), stride=up, groups=groups)
        crop = [x0 - width + 1, x1 - width + up, y0 - height + 1, y1 - height + up]
        y = ganops.upfirdn2d(y, f, padding=crop, flip_filter=bool(flip_filter), gain=float(up * up))
    else:
        y = F.conv2d(resample(x, up=up, filter=f, padding=list(pads)), correlated, groups=groups)
    return y if down == 1 else resample(y, down=down, filter=f, padding=[0, 0, 0, 0])


def _transposed(weight: Tensor, groups: int) -> Tensor:
    """[O, I/groups, kh, kw] as conv_transpose2d wants it, [I, O/groups, kh, kw]."""
    out_channels, in_channels, height, width = weight.shape
    grouped = weight.reshape(groups, out_channels // groups, in_channels, height, width)
    return grouped.transpose(1, 2).reshape(groups * in_channels, out_channels // groups, height, width)
