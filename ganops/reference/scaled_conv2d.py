"""scaled_conv2d: a convolution between two scales, and what follows it; the heart of modulated_conv2d."""

import torch.nn.functional as F
from torch import Tensor

from .bias_act import compute_dtype
from .modulated_conv2d import epilogue, scaled
from .upfirdn2d import upfirdn2d


def scaled_conv2d(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor | None,
    y_scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """bias_act(conv2d(x * x_scale[n, i], weight) * y_scale[n, o] + noise + b), a correlation of stride ``down``.

    It sees ``up - 1`` zeros after each input sample; padding is in the upsampled image, (x_before, x_after, y_before,
    y_after), and crops where it is negative.
    """
    y = scaled(x.to(compute_dtype(x.dtype)), x_scale)
    y = upfirdn2d(y, None, (up, up), (1, 1), padding, False, 1.0)
    y = F.conv2d(y, weight.to(y.dtype), stride=down)
    return epilogue(y, y_scale, noise, b, act, alpha, gain, clamp).to(x.dtype)
