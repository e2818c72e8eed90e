"""Layers of StyleGAN2, and what its generator and discriminator share: see stylegan2.py for the sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks, bias_act, modulated_conv2d, setup_filter
from ..ops.conv2d_resample import conv2d_resample
from ._layers import FullyConnectedLayer, activation_gain

ARCHITECTURES = ("orig", "skip", "resnet")
NOISE_MODES = ("random", "const", "none")
RESAMPLE_FILTER = (1.0, 3.0, 3.0, 1.0)
SQRT_HALF = math.sqrt(0.5)  # keeps the variance of a sum of two signals (SG2, section 4.1)
LOWEST_RESOLUTION = 4
LOWEST_FP16_RESOLUTION = 8


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias and activation, in one call (SG2, section 2.2, figure 2c).

    Args:
        resolution: height and width of the output.
        up: upsampling factor.
        use_noise: add noise with a learned strength.
        conv_clamp: bound of the output's magnitude; None for none (ADA, appendix C: for float16).
        channels_last: memory format of the weight.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = RESAMPLE_FILTER,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.use_noise = resolution, up, use_noise
        self.activation, self.act_gain, self.conv_clamp = activation, activation_gain(activation), conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(_conv_weight(out_channels, in_channels, kernel_size, channels_last))
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise_mode: str = "random",
        fused_modconv: bool | None = None,
        gain: float = 1,
        styles: Tensor | None = None,
    ) -> Tensor:
        """x [N, in, R/up, R/up] and w [N, w_dim] to [N, out, R, R].

        Args:
            noise_mode: "random" (new at each call), "const" (that of the checkpoint) or "none".
            fused_modconv: accepted for compatibility; has no effect.
            gain: further factor of the output.
            styles: [N, in] instead of ``affine(w)``.
        """
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode must be one of {', '.join(NOISE_MODES)}, got {noise_mode!r}")
        noise = None
        if self.use_noise and noise_mode == "random":
            shape = (x.shape[0], 1, self.resolution, self.resolution)
            noise = torch.randn(shape, device=x.device, dtype=self.noise_strength.dtype) * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        return modulated_conv2d(
            x,
            self.weight,
            self.affine(w) if styles is None else styles,
            noise=noise,
            up=self.up,
            padding=self.weight.shape[-1] // 2,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            bias=self.bias,
            act=self.activation,
            gain=self.act_gain * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
        )


class ToRGBLayer(nn.Module):
    """Feature maps to an image: modulated convolution without demodulation, and bias (SG2, section 4.1)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        kernel_size: int = 1,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(_conv_weight(out_channels, in_channels, kernel_size, channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(self.weight[0].numel())

    def forward(self, x: Tensor, w: Tensor, fused_modconv: bool | None = None, styles: Tensor | None = None) -> Tensor:
        """x [N, in, R, R] and w [N, w_dim] to [N, out, R, R]; styles [N, in] replace ``affine(w)``."""
        styles = self.affine(w) if styles is None else styles
        return modulated_conv2d(
            x,
            self.weight,
            styles * self.weight_gain,
            demodulate=False,
            padding=self.weight.shape[-1] // 2,
            bias=self.bias,
            clamp=self.conv_clamp,
        )


class Conv2dLayer(nn.Module):
    """Convolution with resampling, bias and activation; learning rate equalised.

    Args:
        trainable: False keeps weight and bias as buffers, which no ``requires_grad_(True)`` reaches.
    """

    weight: Tensor
    bias: Tensor | None
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = RESAMPLE_FILTER,
        conv_clamp: float | None = None,
        channels_last: bool = False,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.up, self.down, self.conv_clamp = up, down, conv_clamp
        self.activation, self.act_gain = activation, activation_gain(activation)
        weight = _conv_weight(out_channels, in_channels, kernel_size, channels_last)
        self.weight_gain = 1 / math.sqrt(weight[0].numel())
        for name, value in (("weight", weight), ("bias", torch.zeros(out_channels) if bias else None)):
            if trainable:
                self.register_parameter(name, None if value is None else nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.register_buffer("resample_filter", setup_filter(list(resample_filter)))

    def forward(self, x: Tensor, gain: float = 1) -> Tensor:
        """[N, in, H, W] to [N, out, H * up / down, W * up / down]; gain is a further factor of the output."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        padding = self.weight.shape[-1] // 2
        y = conv2d_resample(x, weight, self.resample_filter, self.up, self.down, padding, flip_weight=self.up == 1)
        bias = None if self.bias is None else self.bias.to(y.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(y, bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


def block_resolutions(img_resolution: int) -> list[int]:
    """4, 8, ..., img_resolution."""
    _checks.integer("img_resolution", img_resolution, LOWEST_RESOLUTION)
    if img_resolution & (img_resolution - 1):
        raise ValueError(f"img_resolution must be a power of two, got {img_resolution}")
    return [1 << i for i in range(2, img_resolution.bit_length())]


def channels_at(resolutions: list[int], channel_base: int, channel_max: int) -> dict[int, int]:
    """Feature maps at each resolution (SG2, appendix B)."""
    channels = {resolution: min(channel_base // resolution, channel_max) for resolution in resolutions}
    if min(channels.values()) < 1:
        wanted = f"channel_base must be at least {resolutions[-1]} (img_resolution) and channel_max at least 1"
        raise ValueError(f"{wanted}, got {channel_base} and {channel_max}")
    return channels


def fp16_resolution(img_resolution: int, num_fp16_res: int) -> int:
    """From which resolution on blocks run in float16."""
    _checks.integer("num_fp16_res", num_fp16_res, 0)
    return max(2 * img_resolution >> num_fp16_res, LOWEST_FP16_RESOLUTION)


def check_architecture(architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")


def feature_format(
    device: torch.device,
    full: torch.dtype,
    use_fp16: bool,
    fp16_channels_last: bool,
    force_fp32: bool,
    dtype: torch.dtype | None,
    channels_last: bool | None,
) -> dict[str, Any]:
    """Dtype and memory format of a block's feature maps: what the call wants, else float16 on CUDA or full."""
    fp16 = use_fp16 and device.type == "cuda" and not force_fp32
    if dtype is None:
        dtype = torch.float16 if fp16 else full
    elif dtype not in _checks.DTYPES:
        raise TypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    if channels_last is None:
        channels_last = fp16 and fp16_channels_last
    return {"dtype": dtype, "memory_format": torch.channels_last if channels_last else torch.contiguous_format}


def _conv_weight(out_channels: int, in_channels: int, kernel_size: int, channels_last: bool) -> Tensor:
    weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
    return weight.to(memory_format=torch.channels_last) if channels_last else weight
