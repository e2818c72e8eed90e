"""``python -m ganops equivariance``: how images follow a moved input, in untrained StyleGAN2 and StyleGAN3 networks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import BAD_ARGUMENT, CommandError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..models.metrics import Equivariance

W_DIM = 64
CHANNEL_BASE, CHANNEL_MAX = 4096, 64
"""Of T; R has twice as many, as in the paper."""
MIN_RESOLUTION = 64

DESCRIPTION = """Measure and plot EQ-T, EQ-T_frac and EQ-R (Karras et al. 2021) of randomly initialised generators:
StyleGAN3 in its configurations T and R, and StyleGAN2 without noise, StyleGAN3's Fourier features its input. The ratios
are to the range of [-1, 1], so that a network of low contrast (standard deviation within an image) has better ones."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("equivariance", help="plot how images follow a moved input", description=DESCRIPTION)
    parser.add_argument("--out", type=Path, default=Path("equivariance.png"), metavar="PNG", help="the plot")
    parser.add_argument("--resolution", type=int, default=64, metavar="R", help="64 (default), 128, ...")
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="images of each network (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, latents and motions (default 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.resolution < MIN_RESOLUTION or args.resolution & (args.resolution - 1):
        message = f"expected a power of two, at least {MIN_RESOLUTION}, got {args.resolution}"
        raise CommandError(f"argument --resolution: {message}", BAD_ARGUMENT)
    if args.samples < 1:
        raise CommandError(f"argument --samples: expected at least 1, got {args.samples}", BAD_ARGUMENT)
    if not args.out.parent.is_dir():
        raise CommandError(f"argument --out: folder {str(args.out.parent)!r} does not exist", BAD_ARGUMENT)
    try:
        import matplotlib.figure
    except ImportError as error:
        raise CommandError(f"{error.name} is not installed; get it with: pip install matplotlib") from None

    found = {}
    print(f"{'dB':24}{'EQ-T':>9}{'EQ-T_frac':>11}{'EQ-R':>9}{'contrast':>10}")
    for name in NETWORKS:
        result, contrast = measure(name, args.resolution, args.samples, args.seed)
        found[name] = result
        print(f"{name:24}{result.eq_t:9.1f}{result.eq_t_frac:11.1f}{result.eq_r:9.1f}{contrast:10.2f}", flush=True)
    try:
        plot(found, matplotlib.figure.Figure(figsize=(7, 3.2), dpi=100, layout="constrained")).savefig(args.out)
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot write {args.out}: {error}") from None
    print(args.out)
    return 0


def measure(name: str, resolution: int, samples: int, seed: int) -> tuple[Equivariance, float]:
    """The metrics of a network of NETWORKS, randomly initialised, and the standard deviation within its images."""
    import torch

    from ..models.metrics import equivariance

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        mapping, synthesis = NETWORKS[name](resolution)
        ws = mapping(torch.randn(samples, W_DIM))
        images = torch.cat([synthesis(w) for w in torch.split(ws, 1)])
        contrast = images.var(dim=(2, 3)).mean().sqrt().item()
        return equivariance(synthesis, ws, torch.Generator().manual_seed(seed)), contrast


def stylegan3_t(resolution: int) -> tuple[nn.Module, nn.Module]:
    from ..models.stylegan3 import Generator

    network = Generator(W_DIM, 0, W_DIM, resolution, 3, channel_base=CHANNEL_BASE, channel_max=CHANNEL_MAX)
    return network.mapping, network.synthesis


def stylegan3_r(resolution: int) -> tuple[nn.Module, nn.Module]:
    from ..models.stylegan3 import CONFIG_R, Generator

    channels = {"channel_base": 2 * CHANNEL_BASE, "channel_max": 2 * CHANNEL_MAX}
    network = Generator(W_DIM, 0, W_DIM, resolution, 3, **{**CONFIG_R, **channels})
    return network.mapping, network.synthesis


def fourier_stylegan2(resolution: int) -> tuple[nn.Module, nn.Module]:
    """StyleGAN2 whose 4x4 constant is replaced by Fourier features (the paper's configuration B), without noise."""
    from torch import nn

    from ..models.stylegan2 import Generator
    from ..models.stylegan3 import SynthesisInput

    class FourierStyleGAN2(nn.Module):
        def __init__(self, synthesis: Any) -> None:
            super().__init__()
            self.synthesis = synthesis
            channels = len(synthesis.b4.const)
            del synthesis.b4.const
            self.input = SynthesisInput(W_DIM, channels, size=4, sampling_rate=4, bandwidth=1)

        def forward(self, ws: Tensor) -> Tensor:
            """ws [1, num_ws, w_dim] to an image."""
            self.synthesis.b4.const = self.input(ws[:, 0])[0]
            image: torch.Tensor = self.synthesis(ws, noise_mode="none")
            return image

    network = Generator(W_DIM, 0, W_DIM, resolution, 3, channel_base=CHANNEL_BASE, channel_max=CHANNEL_MAX)
    return network.mapping, FourierStyleGAN2(network.synthesis)


NETWORKS = {"StyleGAN2, Fourier input": fourier_stylegan2, "StyleGAN3-T": stylegan3_t, "StyleGAN3-R": stylegan3_r}


def plot(found: Mapping[str, Equivariance], figure: Any) -> Any:
    """A group of bars for each metric."""
    axes = figure.subplots()
    width = 0.8 / len(found)
    for i, (name, result) in enumerate(found.items()):
        places = [metric + (i - (len(found) - 1) / 2) * width for metric in range(len(result))]
        axes.bar_label(axes.bar(places, list(result), width, label=name), fmt="%.0f")
    axes.set_xticks(range(3), ["EQ-T", "EQ-T$_{frac}$", "EQ-R"])
    axes.set_ylabel("dB")
    axes.margins(y=0.15)
    axes.legend(frameon=False, ncols=len(found), loc="upper center", bbox_to_anchor=(0.5, 1.15))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
