"""The modulated convolution that StyleGAN3's network files define."""

from torch import Tensor

import ganops
from ganops.compat.served.nvlabs.upfirdn2d import Sizes


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: Sizes = 0,
    input_gain: Tensor | None = None,
) -> Tensor:
    """``padding`` is an int or (y, x), as torch's convolution takes it."""
    pads = padding if isinstance(padding, int) else list(padding)[::-1]
    return ganops.modulated_conv2d(
        x, w, s, demodulate=bool(demodulate), prenormalize="rms", padding=pads, input_gain=input_gain
    )
