"""``op.fused_act``."""

import torch
from torch import Tensor

import ganops
from ganops.compat._arguments import like


class FusedLeakyReLU(torch.nn.Module):
    bias: Tensor | None

    def __init__(self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = 2**0.5
) -> Tensor:
    return ganops.bias_act(input, like(bias, input), act="lrelu", alpha=float(negative_slope), gain=float(scale))
