"""What the networks of StyleGAN2 and StyleGAN3 share: the mapping network and its fully connected layers.

Sources: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019 (SG1);
conditioning: Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020 (ADA).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _checks, bias_act
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


class MappingNetwork(nn.Module):
    """z and a condition c to the intermediate latent w (SG1, section 2; conditioning: ADA, appendix C).

    z and the embedded c are each normalised to unit RMS, concatenated, and go through fully connected layers.

    Args:
        z_dim: length of z; 0 for none.
        c_dim: length of c; 0 for none.
        w_dim: length of w.
        num_ws: how many layers w is repeated for; None returns [N, w_dim] and knows no truncation.
        num_layers: fully connected layers, after the one that embeds c.
        embed_features: length of the embedded c. Default: w_dim.
        layer_features: width of the layers between. Default: w_dim.
        activation: as in :func:`ganops.bias_act`.
        lr_multiplier: learning rate of these layers relative to the rest.
        w_avg_beta: decay of the moving average of w, the centre of truncation; None for no average.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ) -> None:
        super().__init__()
        if z_dim < 0 or c_dim < 0 or z_dim + c_dim == 0:
            raise ValueError(f"z_dim and c_dim must be at least 0, and one of them more, got {z_dim} and {c_dim}")
        _checks.integer("w_dim", w_dim, 1)
        _checks.integer("num_layers", num_layers, 1)
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        embed_features = 0 if c_dim == 0 else w_dim if embed_features is None else embed_features
        layer_features = w_dim if layer_features is None else layer_features
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        features = [z_dim + embed_features, *[layer_features] * (num_layers - 1), w_dim]
        for i in range(num_layers):
            layer = FullyConnectedLayer(
                features[i], features[i + 1], activation=activation, lr_multiplier=lr_multiplier
            )
            setattr(self, f"fc{i}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        skip_w_avg_update: bool | None = None,
    ) -> Tensor:
        """Map z [N, z_dim] and c [N, c_dim] to w [N, num_ws, w_dim].

        Args:
            z: None where z_dim is 0.
            c: None where c_dim is 0.
            truncation_psi: w becomes ``w_avg + truncation_psi * (w - w_avg)`` (SG1, appendix B).
            truncation_cutoff: only in so many first layers. Default: in all.
            update_emas: move ``w_avg`` towards the mean of this batch.
            skip_w_avg_update: the older name of the same: where it is given, training mode updates unless it is True.

        Raises:
            ValueError: a shape does not fit, or there is no average to truncate towards.
        """
        layers: list[FullyConnectedLayer] = [getattr(self, f"fc{i}") for i in range(self.num_layers)]
        dtype = layers[0].weight.dtype
        parts = []
        if self.z_dim > 0:
            parts.append(normalize_2nd_moment(rows("z", z, self.z_dim).to(dtype)))
        if self.c_dim > 0:
            parts.append(normalize_2nd_moment(self.embed(rows("c", c, self.c_dim).to(dtype))))
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"z and c must have as many rows, got {len(parts[0])} and {len(parts[1])}")
        w: Tensor = torch.cat(parts, dim=1)
        for layer in layers:
            w = layer(w)
        w = w.to(dtype)  # autocast may have made it another

        if skip_w_avg_update is not None:
            update_emas = self.training and not skip_w_avg_update
        if update_emas and "w_avg" in self._buffers and self.w_avg_beta is not None:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        if self.num_ws is not None:
            w = w[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            w = self._truncate(w, truncation_psi, truncation_cutoff)
        return w

    def _truncate(self, w: Tensor, psi: float, cutoff: int | None) -> Tensor:
        if "w_avg" not in self._buffers:
            raise ValueError(f"truncation_psi must be 1 where num_ws or w_avg_beta is None, got {psi}")
        if cutoff is None:
            return self.w_avg.lerp(w, psi)
        return torch.cat([self.w_avg.lerp(w[:, :cutoff], psi), w[:, cutoff:]], dim=1)


def rows(name: str, value: Tensor | None, length: int) -> Tensor:
    """Checks that value is [N, length]."""
    if value is None or value.ndim != 2 or value.shape[1] != length:
        raise ValueError(f"{name} must be [N, {length}], got {None if value is None else list(value.shape)}")
    return value
