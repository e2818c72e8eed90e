"""``python -m ganops bench``: times operators and networks here, or models kernels' times on GPUs."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import BAD_ARGUMENT, CommandError

if TYPE_CHECKING:
    import torch

DESCRIPTION = """Time the operators on the layers of StyleGAN2, StyleGAN3 and MobileStyleGAN, or the networks whole, by
several implementations in turn. docs/benchmarks.md says what each column means."""
SUITES = ("ops", "models", "training", "scaling", "peers")
DTYPES = ("float32", "float64", "float16", "bfloat16")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("bench", help="time operators and networks", description=DESCRIPTION)
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is timed")
    what.add_argument("--suite", choices=SUITES, default="ops", help="default: ops, every layer of the networks")
    what.add_argument(
        "--filter", nargs="+", default=[], metavar="TEXT", help="only cases with one of these in the name"
    )
    what.add_argument("--quick", action="store_true", help="the networks at 64 pixels, few repeats")
    what.add_argument("--dtype", choices=DTYPES, default="float32")
    what.add_argument("--backward", action="store_true", help="gradients of all inputs, too (ops)")
    what.add_argument("--batch", type=_positive, default=1, metavar="N")
    who = parser.add_argument_group("by which implementations")
    who.add_argument(
        "--impl",
        type=lambda text: text.split(","),
        metavar="LIST",
        help="of reference, compile (torch.compile of it), cpu, cuda, openvino, onnxruntime; default: reference and "
        "the device's own",
    )
    who.add_argument(
        "--peer", nargs="+", default=[], metavar="NAME=PATH", help="checkouts: stylegan3, stylegan2-ada, rosinality"
    )
    who.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=_positive, metavar="N", help="default: torch's")
    how.add_argument("--repeat", type=_positive, default=7, metavar="N", help="runs of each (default 7)")
    how.add_argument("--seconds", type=_positive, default=20, metavar="S", help="fewer runs beyond so many a case")
    how.add_argument("--malloc", choices=["default", "keep"], default="default", help="keep: reuse freed large blocks")
    how.add_argument(
        "--tune",
        action="store_true",
        help="time nothing else: measure on this GPU when modulated_conv2d's own kernel is faster than torch's "
        "convolution, and keep that in the user's cache",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="save them")
    results.add_argument("--plot", type=Path, metavar="PNG", help="draw a roofline and speed-ups")
    results.add_argument("--compare", type=Path, metavar="FILE", help="say what changed since a saved run")
    parser.add_argument_group("instead, without running anything").add_argument(
        "--model",
        type=lambda text: text.split(","),
        metavar="GPUS",
        help="modelled lower bounds of the CUDA kernels' times on GPUs, such as h100,a100,rtx4090",
    )


def run(args: argparse.Namespace) -> int:
    if args.tune:
        return _tune(args.repeat)
    for needed in ("tqdm", "matplotlib")[: 2 if args.plot else 1]:
        if find_spec(needed) is None:
            raise CommandError(f"{needed} is not installed; get it with: pip install 'ganops[bench]'")
    from ..bench import main

    try:
        complete = main.bench(args)
    except ValueError as error:
        raise CommandError(str(error), BAD_ARGUMENT) from None
    if not complete:
        raise KeyboardInterrupt  # after what was measured has been printed and saved
    return 0


def _tune(repeat: int) -> int:
    import torch

    from .. import _backend, _tuning
    from ..bench.clock import CudaClock

    if reason := _backend.why_not("cuda", "scaled_conv2d"):
        raise CommandError(f"argument --tune: {reason}", BAD_ARGUMENT)
    clock = CudaClock()

    def seconds(call: Callable[[], torch.Tensor]) -> float:
        timed = clock.prepare(call)
        return statistics.median(timed() for _ in range(repeat)) / 1e3

    table, where = _tuning.tune(torch.device("cuda", torch.cuda.current_device()), seconds)
    print("time of the kernel over torch's, to what is modelled")
    for kind, factor in table.items():
        print(f"{kind:16}{factor:8.2f}")
    print(f"kept in {where}")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)
