"""The modulated convolution of rosinality's ``model.py``, a layer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

import ganops

Forward = Callable[[Any, Tensor, Tensor], Tensor]


def modulated_forward(original: Forward) -> Forward:
    """A ``ModulatedConv2d.forward`` for layers with the known parts; others run the original."""

    def forward(self: Any, input: Tensor, style: Tensor) -> Tensor:
        if not _has_known_parts(self):
            return original(self, input, style)
        weight, styles = self.weight[0] * self.scale, self.modulation(style)
        if not (self.upsample or self.downsample):
            return ganops.modulated_conv2d(input, weight, styles, demodulate=self.demodulate, padding=self.padding)
        # The layer pads around its filter, ganops around a centred one; and the layer's filter holds the gain of 2 * 2.
        kernel, (before, after) = self.blur.kernel.float(), self.blur.pad
        size, width = kernel.shape[-1], weight.shape[-1]
        if self.upsample:
            pads = [before + width - 1 - (size + 1) // 2, after + width - 2 - (size - 2) // 2]
        else:
            pads = [before - (size - 1) // 2, after - (size - 2) // 2]
        return ganops.modulated_conv2d(
            input,
            weight,
            styles,
            demodulate=self.demodulate,
            up=2 if self.upsample else 1,
            down=2 if self.downsample else 1,
            padding=pads * 2,
            resample_filter=kernel / 4 if self.upsample else kernel,
            flip_weight=not self.upsample,  # a transposed convolution does not flip what a convolution does
        )

    return forward


def _has_known_parts(layer: Any) -> bool:
    weight = getattr(layer, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 5
        and weight.shape[0] == 1
        and weight.shape[-1] == weight.shape[-2]
        and isinstance(layer.scale, float)
        and getattr(layer, "eps", 1e-8) == 1e-8
        and isinstance(layer.demodulate, bool)
        and callable(layer.modulation)
        and (not (layer.upsample or layer.downsample) or _is_known_blur(layer.blur))
    )


def _is_known_blur(blur: Any) -> bool:
    kernel = getattr(blur, "kernel", None)
    return isinstance(kernel, Tensor) and kernel.ndim == 2 and kernel.shape[0] == kernel.shape[1] and len(blur.pad) == 2
