"""``python -m ganops convert``: a network of a checkpoint as a safetensors file, without running the checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import BAD_ARGUMENT, CommandError

if TYPE_CHECKING:
    from torch import nn

DESCRIPTION = """Write one network of a checkpoint as a safetensors file: tensors, and its class and arguments as JSON.
Reads pickles of StyleGAN2-ADA and StyleGAN3 (.pkl) and checkpoints of rosinality's stylegan2-pytorch (.pt), and
executes nothing that is in them. To .pkl it writes a pickle for programs that want one: ganops reads it without
executing anything; NVIDIA's legacy.load_network_pkl reads it where ganops is installed."""

DEFAULTS = {".pkl": "G_ema", ".pt": "g_ema"}


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "convert", help="write a checkpoint's network as safetensors", description=DESCRIPTION
    )
    parser.add_argument("source", metavar="FROM", help="a .pkl, .pt or .safetensors file, or an https address of one")
    parser.add_argument("target", metavar="TO", type=Path, help="the .safetensors or .pkl file to write")
    parser.add_argument("--network", metavar="NAME", help="which one (default: G_ema of a .pkl, g_ema of a .pt)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..compat import save_network, save_network_pkl
    from ..compat.convert import config_of

    write = {".safetensors": save_network, ".pkl": save_network_pkl}.get(args.target.suffix)
    if write is None:
        raise CommandError(f"argument TO: expected .safetensors or .pkl, got {str(args.target)!r}", BAD_ARGUMENT)
    try:
        name, network = load(args.source, args.network)
        write(network, args.target)
    except (OSError, ValueError, TypeError, ModuleNotFoundError) as error:
        raise CommandError(str(error)) from None
    config = config_of(network)
    print(f"{args.target}: {name}, ganops.models.{config.model}({_text(config.kwargs)})")
    return 0


def load(source: str, network: str | None) -> tuple[str, nn.Module]:
    """The named network of a checkpoint, and its name."""
    from torch import nn

    from ..compat import load_network, load_network_pkl, load_rosinality

    suffix = Path(source.partition("?")[0]).suffix
    if suffix == ".safetensors":
        if network is not None:
            raise CommandError("argument --network: a .safetensors file holds one network", BAD_ARGUMENT)
        return "the network", load_network(source)
    if suffix not in DEFAULTS:
        raise CommandError(f"argument FROM: expected .pkl, .pt or .safetensors, got {source!r}", BAD_ARGUMENT)
    name = network or DEFAULTS[suffix]
    content = load_network_pkl(source, [name]) if suffix == ".pkl" else load_rosinality(source, [name])
    if name not in content:
        raise CommandError(f"{source}: has no network {name!r}, only {', '.join(content) or 'nothing'}")
    if not isinstance(content[name], nn.Module):
        raise CommandError(f"{source}: {name} is {content[name]!r}, of which ganops has no model")
    return name, content[name]


def _text(kwargs: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
