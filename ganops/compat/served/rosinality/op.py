"""The package ``op`` itself, for code that comes without."""

import importlib

from .fused_act import FusedLeakyReLU, fused_leaky_relu
from .upfirdn2d import upfirdn2d

__all__ = ["FusedLeakyReLU", "conv2d_gradfix", "fused_leaky_relu", "upfirdn2d"]

conv2d_gradfix = importlib.import_module(f"{__name__}.conv2d_gradfix")
