"""``python -m ganops run``: a script of another codebase, unmodified, with its operators served from ganops."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import runpy
import sys
from typing import TYPE_CHECKING, Any

from . import BAD_ARGUMENT, CommandError

if TYPE_CHECKING:
    from ..compat import Entry

DESCRIPTION = """Run a Python script or module as python itself would, with the operators of the StyleGAN family that it
imports (torch_utils.ops, op, basicsr.ops, mmcv.ops) served from ganops. Nothing of the codebase is changed."""

EPILOG = "Example: python -m ganops run --explain gen_images.py --network=net.pkl --seeds=0-3 --outdir=out"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "run",
        help="run a script of a StyleGAN codebase with its operators served from ganops",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="%(prog)s [-h] [--explain] [--keep NAME] [--cpu] (SCRIPT | -m MODULE) [ARGUMENT ...]",
    )
    parser.add_argument("--explain", action="store_true", help="at the end, list what was replaced and what was not")
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME",
        help="leave the codebase's own, such as modulated_conv2d; may be given several times",
    )
    parser.add_argument(
        "--cpu", action="store_true", help="use the CPU where the script says cuda; the default where torch sees no GPU"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("target", metavar="SCRIPT", help="the script, or the module's name after -m")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="the script's own arguments")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from .. import compat
    from ..compat._cpu import cuda_means_cpu

    if not args.module and not os.path.exists(args.target):
        raise CommandError(f"argument SCRIPT: {args.target!r} does not exist", BAD_ARGUMENT)
    try:
        compat.install(keep=args.keep)
    except ValueError as error:
        raise CommandError(f"argument --keep: {error}", BAD_ARGUMENT) from None
    if args.module and not _exists(args.target):
        compat.uninstall()
        raise CommandError(f"argument -m: no module is called {args.target!r}", BAD_ARGUMENT)
    in_child_processes(args.keep)
    sys.argv = [args.target, *args.arguments]
    try:
        with cuda_means_cpu() if args.cpu or not _has_gpu() else contextlib.nullcontext():
            run_target(args.target, args.module)
    finally:
        if args.explain:
            print(explain(compat.report()), file=sys.stderr)
    return 0


def run_target(target: str, is_module: bool) -> None:
    """As ``python target`` or ``python -m target``."""
    if is_module:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
        return
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(target)) if os.path.isfile(target) else target
    runpy.run_path(target, run_name="__main__")


def _has_gpu() -> bool:
    """Without a question to CUDA itself: the script may still choose the devices that it shall see."""
    import torch

    from .. import _gpu

    return bool(torch.version.hip) or (torch.version.cuda is not None and _gpu.driver_version() is not None)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it would be in
        return False


class Installer:
    """Installs where it is unpickled."""

    def __init__(self, keep: list[str]) -> None:
        self._keep = keep

    def __reduce__(self) -> tuple[Any, ...]:
        return _install, (self._keep,)


def _install(keep: list[str]) -> None:
    from .. import compat

    compat.install(keep=keep)


def in_child_processes(keep: list[str]) -> None:
    """Have processes that multiprocessing spawns install, too, before they import the script."""
    import multiprocessing.spawn

    prepare = multiprocessing.spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**prepare(name), "ganops": Installer(keep)}

    multiprocessing.spawn.get_preparation_data = get_preparation_data


def explain(entries: list[Entry]) -> str:
    """The report, a line for each module or function."""
    if not entries:
        return "ganops: replaced nothing: no module of a known family was imported"
    width = max(len(entry.module) for entry in entries)
    lines = [f"  {entry.module:{width}}  {entry.state:10}  {entry.detail}" for entry in entries]
    return "\n".join(["ganops:", *lines])
