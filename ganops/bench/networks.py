"""The networks whose layers are timed, with the sizes their papers' configurations have."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .calls import Call
from .trace import trace, without_data

Z_DIM = 512


@dataclass(frozen=True)
class Network:
    """One of ``ganops.models`` with its arguments."""

    name: str
    family: str
    sizes: dict[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    is_discriminator: bool = False

    def build(self) -> nn.Module:
        """With random weights, drawn from torch's generator."""
        module = importlib.import_module(f"ganops.models.{self.family}")
        size = self.sizes["img_resolution"]
        if self.is_discriminator:
            made: nn.Module = module.Discriminator(0, size, 3, **self.options)
        elif self.family == "mobile_stylegan":
            made = _mobile_stylegan(module)
        else:
            made = module.Generator(Z_DIM, 0, Z_DIM, size, 3, **self.options)
        return made.eval()

    def input_shape(self, batch: int) -> tuple[int, ...]:
        size = self.sizes["img_resolution"]
        return (batch, 3, size, size) if self.is_discriminator else (batch, Z_DIM)

    def forward(self, module: nn.Module, z: Tensor, **options: Any) -> Tensor:
        """The image of z, by the noise that is stored in the network; or a discriminator's score of an image."""
        if self.family == "stylegan2" and not self.is_discriminator:
            options["noise_mode"] = "const"
        args = () if self.family == "mobile_stylegan" else (None,)
        result: Tensor = module(z, *args, **options)
        return result


def _mobile_stylegan(module: Any) -> nn.Module:
    """With its trained weights where they are installed."""
    try:
        trained: nn.Module = module.MobileStyleGAN.from_pretrained()
        return trained
    except FileNotFoundError:
        made: nn.Module = module.MobileStyleGAN()
        for parameter in made.parameters():
            parameter.data.normal_()
        return made


@dataclass(frozen=True)
class Traced:
    """A network's calls of operators, FLOPs of what it computes besides, and its number of parameters."""

    calls: list[Call]
    other_flops: int
    parameters: int


@functools.cache
def traced(name: str, batch: int = 1) -> Traced:
    network = NETWORKS[name]
    module = without_data(network.build())
    z = torch.empty(network.input_shape(batch), device="meta")
    with FlopCounterMode(display=False) as counter:
        calls = trace(module, name, lambda module: network.forward(module, z))
    products = sum(call.product_flops() for call in calls)
    parameters = sum(p.numel() for p in module.parameters())
    return Traced(calls, counter.get_total_flops() - products, parameters)


def _networks() -> list[Network]:
    found = []
    for size in (64, 256, 1024):
        sizes = {"img_resolution": size}
        found += [
            Network(f"sg2-{size}", "stylegan2", sizes, {"conv_clamp": 256}),
            Network(f"sg2-d-{size}", "stylegan2", sizes, {"conv_clamp": 256}, is_discriminator=True),
            Network(f"sg3t-{size}", "stylegan3", sizes),
            Network(
                f"sg3r-{size}",
                "stylegan3",
                sizes,
                {"channel_base": 65536, "channel_max": 1024, "conv_kernel": 1, "use_radial_filters": True},
            ),
        ]
    found.append(Network("mobile", "mobile_stylegan", {"img_resolution": 1024}))
    return found


NETWORKS = {network.name: network for network in _networks()}
