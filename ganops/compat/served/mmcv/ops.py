"""The package ``mmcv.ops`` itself, for an mmcv without compiled operators."""

import importlib

from .bias_act import bias_act
from .filtered_lrelu import filtered_lrelu
from .fused_bias_leakyrelu import FusedBiasLeakyReLU, fused_bias_leakyrelu
from .upfirdn2d import filter2d, upfirdn2d, upsample2d

__all__ = [
    "FusedBiasLeakyReLU",
    "bias_act",
    "conv2d",
    "conv2d_gradfix",
    "conv_transpose2d",
    "filter2d",
    "filtered_lrelu",
    "fused_bias_leakyrelu",
    "upfirdn2d",
    "upsample2d",
]

conv2d_gradfix = importlib.import_module(f"{__name__}.conv2d_gradfix")
conv2d, conv_transpose2d = conv2d_gradfix.conv2d, conv2d_gradfix.conv_transpose2d
