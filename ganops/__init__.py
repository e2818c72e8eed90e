"""Fused operators for the StyleGAN family."""

from ._backend import backend, backends
from ._weight_gradients import no_weight_gradients, weight_gradients_disabled
from .ops.adaptive_modulated_conv2d import adaptive_modulated_conv2d
from .ops.bias_act import bias_act
from .ops.filtered_lrelu import filtered_lrelu
from .ops.modulated_conv2d import modulated_conv2d
from .ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__version__ = "0.1.0"

__all__ = [
    "adaptive_modulated_conv2d",
    "backend",
    "backends",
    "bias_act",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "modulated_conv2d",
    "no_weight_gradients",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
    "weight_gradients_disabled",
]
