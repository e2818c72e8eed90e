"""The modulated convolution that StyleGAN2's network files define."""

from typing import Any

from torch import Tensor

import ganops
from ganops.compat._arguments import taps
from ganops.compat.served.nvlabs.upfirdn2d import Sizes


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Sizes = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: Any = True,
) -> Tensor:
    """``fused_modconv`` chose between two ways to the same numbers; here there is one, faster than both."""
    one_channel = noise is None or noise.ndim == 2 or (noise.ndim == 4 and noise.shape[1] == 1)
    y = ganops.modulated_conv2d(
        x,
        weight,
        styles,
        demodulate=bool(demodulate),
        noise=noise if one_channel else None,
        up=up,
        down=down,
        padding=padding,
        resample_filter=taps(resample_filter),
        flip_weight=bool(flip_weight),
    )
    return y if noise is None or one_channel else y + noise.to(y.dtype)
