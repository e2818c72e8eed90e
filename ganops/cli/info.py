"""``python -m ganops info``: what serves each operator on this machine, and why."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

DESCRIPTION = """Print which implementation serves each operator on this machine and why, what the compiled library was
built with, and whether it fits the torch, driver and GPUs that are here."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("info", help="say what serves each operator here, and why", description=DESCRIPTION)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import torch

    from .. import __file__ as package
    from .. import __version__, _gpu, _load

    built = _gpu.build_info()
    driver = _gpu.driver_version()
    rows = [
        ("ganops", f"{__version__} in {os.path.dirname(package)}"),
        ("python", f"{platform.python_version()} on {platform.machine()}"),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("library", _load.UNAVAILABLE or f"{_load.find()}, built by {built.compiler} for torch {built.torch} or newer"),
    ]
    if not _load.UNAVAILABLE:
        instructions, bfloat16 = torch.ops.ganops.cpu_instruction_set(), torch.ops.ganops.cpu_bfloat16_instructions()
        rows.append(("CPU kernels", f"instruction set {instructions}, bfloat16 instructions: {bfloat16}"))
        cuda = f"toolkit {built.toolkit}, for {', '.join(built.architectures)}" if built.toolkit else "none"
        rows.append(("CUDA kernels", cuda))
    rows.append(("driver", f"knows CUDA up to {driver[0]}.{driver[1]}" if driver else "none found"))
    rows += gpus(driver, built)
    for name, text in rows:
        print(f"{name:14}{text}")
    print()
    for line in operators():
        print(line)
    return 0


def gpus(driver: tuple[int, int] | None, built: Any) -> list[tuple[str, str]]:
    import torch

    from .. import _gpu

    if not torch.cuda.is_available():
        return [("GPU", "none that torch sees")]
    rows = []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        state = f"served by {_gpu.serving(capability, built.architectures)}"
        if not built.toolkit:
            state = "plain PyTorch: the library has no CUDA kernels"
        elif reason := _gpu.why_unfit(capability, driver, built):
            state = f"does not fit: {reason}"
        name = f"{torch.cuda.get_device_name(index)}, sm_{capability[0]}{capability[1]}"
        rows.append((f"GPU {index}", f"{name}: {state}"))
    return rows


def operators() -> list[str]:
    """A line for each operator: compiled or plain PyTorch on each device, with the reason."""
    from .. import _backend
    from ..ops._library import OPERATORS

    lines = []
    for device in _backend.NATIVE_DEVICES:
        served: dict[str, list[str]] = {}
        for operator in OPERATORS:
            reason = _backend.why_not(device, operator.name)
            served.setdefault(f"plain PyTorch ({reason})" if reason else "compiled kernel", []).append(operator.name)
        for state, names in served.items():
            lines.append(f"on {device}: {state}")
            lines += [f"  {name}" for name in names]
    return lines
