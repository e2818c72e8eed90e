"""Runs classes of a checkout, by itself or over ganops; a script, so that each run has an interpreter of its own.

    python compat_client.py CHECKOUT TASK OUT [--ganops]

Nothing of the checkout is changed. What it needs and new Pythons lack is stood in for, without ganops, too.
"""

import argparse
import math
import pickle
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.cpp_extension

RESOLUTION, BATCH = 64, 4


def stand_ins() -> None:
    """pkg_resources, which setuptools has dropped; and no compilation at import, which wants a CUDA toolkit."""
    from packaging.version import parse

    sys.modules.setdefault("pkg_resources", types.SimpleNamespace(parse_version=parse))  # type: ignore[arg-type]
    torch.utils.cpp_extension.load = lambda *args, **kwargs: None


def randomised(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter random: those that begin as zeros would hide what they multiply."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.abs().max() == parameter.abs().min():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("magnitude_ema"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return network


def gradients(*networks: torch.nn.Module) -> dict[str, np.ndarray]:
    named = {f"{i}.{name}": p for i, network in enumerate(networks) for name, p in network.named_parameters()}
    return {name: p.grad.numpy() for name, p in named.items() if p.grad is not None}


def stylegan2_networks() -> tuple[Any, Any, types.ModuleType]:
    try:
        from training import networks_stylegan2 as networks
    except ImportError:
        from training import networks
    torch.manual_seed(0)
    widths = {"channel_base": 2048, "channel_max": 64}
    g = networks.Generator(64, 0, 64, RESOLUTION, 3, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=widths) \
        if networks.__name__.endswith(".networks") else \
        networks.Generator(64, 0, 64, RESOLUTION, 3, mapping_kwargs={"num_layers": 2}, **widths)
    d = networks.Discriminator(0, RESOLUTION, 3, **widths)
    return randomised(g, 1), randomised(d, 2), networks
