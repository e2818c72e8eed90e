"""``mmcv.ops.fused_bias_leakyrelu``."""

import torch
from torch import Tensor

from ganops.compat.served.rosinality.fused_act import fused_leaky_relu


class FusedBiasLeakyReLU(torch.nn.Module):
    def __init__(self, num_channels: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(num_channels))
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_bias_leakyrelu(input, self.bias, self.negative_slope, self.scale)


def fused_bias_leakyrelu(input: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    return fused_leaky_relu(input, bias, negative_slope, scale)


def bias_leakyrelu_ref(x: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    return fused_leaky_relu(x, bias, negative_slope, scale)
