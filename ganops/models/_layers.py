"""What the networks of StyleGAN2 and StyleGAN3 share: the normalised latent and the fully connected layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import bias_act
from ..ops.bias_act import parse_activation


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x divided by its root mean square along ``dim``, so that its second moment there is 1."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def activation_gain(activation: str) -> float:
    """The gain with which an activation keeps the variance of a unit normal signal.

    Raises:
        ValueError: unknown activation.
    """
    return parse_activation(activation, None, None, None)[2]


class FullyConnectedLayer(nn.Module):
    """``act(x W^T lr / sqrt(in) + b lr)``, W and b stored as ``weight`` [out, in] and ``bias`` [out].

    The factors equalise the learning rate: the stored W is unit normal (divided by ``lr_multiplier``), so that all
    layers learn at the same speed (Karras et al., "Progressive Growing of GANs" (2018), section 4.1).

    Args:
        bias: whether there is one.
        activation: as in :func:`ganops.bias_act`.
        lr_multiplier: lr above; how fast this layer learns beside others.
        weight_init: standard deviation of the initial W, before the division by ``lr_multiplier``.
        bias_init: initial value of ``b lr``: a number, or ``out_features`` of them.

    Raises:
        ValueError: unknown activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1,
        bias_init: float | Tensor = 0,
        weight_init: float = 1,
    ) -> None:
        super().__init__()
        activation_gain(activation)
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * (weight_init / lr_multiplier))
        bias_values = torch.as_tensor(bias_init, dtype=torch.float32).expand(out_features) / lr_multiplier
        self.bias = nn.Parameter(bias_values) if bias else None
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] to [N, out_features], in x's dtype."""
        weight = self.weight.to(x.dtype) * self.weight_gain
        bias = None if self.bias is None else self.bias.to(x.dtype) * self.bias_gain
        if self.activation == "linear":
            return F.linear(x, weight, bias)
        return bias_act(F.linear(x, weight), bias, act=self.activation)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, activation={self.activation}"
