"""``op.fused_act`` as it was first, and as BasicSR has it: always with a bias."""

import torch
from torch import Tensor

from ganops.compat.served.rosinality.fused_act import fused_leaky_relu as _fused_leaky_relu


class FusedLeakyReLU(torch.nn.Module):
    def __init__(self, channel: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(channel))
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)


def fused_leaky_relu(input: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    return _fused_leaky_relu(input, bias, negative_slope, scale)
