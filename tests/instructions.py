"""How many instructions the CPU kernels execute, as valgrind's callgrind counts them: no clock, no noise.

python tests/instructions.py            prints recorded and today's counts
python tests/instructions.py --record   makes today's counts the recorded ones (instructions.json)

Only instructions in the compiled library count, not those of Python, torch or libc. valgrind knows no AVX-512, so the
counted kernels are those for x86-64-v3 (AVX2), on one thread. Another compiler makes other counts.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import BLUR, DOWN12, RADIAL12, UP12, UP24
from torch import Tensor

import ganops

RECORD = Path(__file__).with_name("instructions.json")
MARKS = Path(__file__).parent / "callgrind" / "marks.cpp"
ISA = "x86-64-v3"
TOLERANCE = 0.02
LIBRARY = "_C.abi3.so"
SECONDS = 600
# Where memory lies decides which of a loop's versions runs: the fewest instructions of so many attempts count.
ATTEMPTS, SHIFT = 3, 37


def image(*shape: int, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last) if channels_last else values


def bias_act(**options: Any) -> Callable[[], Any]:
    x, b = image(1, 16, 64, 64, **options), image(16, dtype=options.get("dtype", torch.float32))
    return lambda: ganops.bias_act(x, b, act="lrelu", clamp=256.0)


def epilogue(**options: Any) -> Callable[[], Any]:
    x, scale, noise, b = image(1, 16, 64, 64, **options), image(1, 16), image(1, 1, 64, 64), image(16)
    return lambda: torch.ops.ganops.modulated_conv2d_epilogue(x, scale, noise, b, "lrelu", 0.2, 1.4, 256.0)


def upfirdn2d(f: Tensor, size: int, padding: Any, up: int = 1, down: int = 1, **options: Any) -> Callable[[], Any]:
    x = image(1, 16, size, size, **options)
    return lambda: ganops.upfirdn2d(x, f, up=up, down=down, padding=padding)


def filtered_lrelu(fu: Tensor, fd: Tensor, up: int, training: bool = False, **options: Any) -> Callable[[], Any]:
    """As layers of StyleGAN3 have it, where their samples lie."""
    x, b = image(1, 16, 38, 38, **options), image(16, dtype=options.get("dtype", torch.float32))
    padding = 18 if up == 4 else 17

    def call() -> Tensor:
        return ganops.filtered_lrelu(x, fu, fd, b, up=up, down=2, padding=padding, clamp=256.0)

    if not training:
        return call
    x.requires_grad_()

    def step() -> None:
        y = call()
        torch.autograd.grad(y, x, y.detach())

    return step


def gemm_conv2d(outputs: int) -> Callable[[], Any]:
    x, weight = image(1, 64, 32, 32), image(outputs, 64, 1, 1)
    return lambda: torch.ops.ganops.gemm_conv2d(x, weight, None, None, 0, 0, False, False)


def winograd_conv2d() -> Callable[[], Any]:
    x, weight, scale = image(1, 64, 32, 32), image(64, 64, 3, 3), image(1, 64)
    return lambda: torch.ops.ganops.winograd_conv2d(x, weight, scale, None, 1, 1)


def filter_energy() -> Callable[[], Any]:
    weight = image(64, 64, 3, 3)
    return lambda: torch.ops.ganops.filter_energy(weight)


# What the networks call, on small images.
CASES: dict[str, Callable[[], Any]] = {
    "bias_act": bias_act(),
    "bias_act, channels last": bias_act(channels_last=True),
    "bias_act, bfloat16": bias_act(dtype=torch.bfloat16),
    "epilogue": epilogue(),
    "epilogue, channels last": epilogue(channels_last=True),
    "gemm_conv2d 1x1": gemm_conv2d(64),
    "gemm_conv2d 1x1, 3 outputs": gemm_conv2d(3),
    "winograd_conv2d": winograd_conv2d(),
    "filter_energy": filter_energy(),
    "upfirdn2d blur": upfirdn2d(BLUR, 65, 1),
    "upfirdn2d blur, channels last": upfirdn2d(BLUR, 65, 1, channels_last=True),
    "upfirdn2d blur, bfloat16": upfirdn2d(BLUR, 65, 1, dtype=torch.bfloat16),
    "upfirdn2d up 2": upfirdn2d(BLUR, 64, [2, 1, 2, 1], up=2),
    "upfirdn2d down 2": upfirdn2d(BLUR, 64, 1, down=2),
    "upfirdn2d 12 taps, down 2": upfirdn2d(DOWN12, 64, 5, down=2),
    "filtered_lrelu up 2": filtered_lrelu(UP12, DOWN12, 2),
    "filtered_lrelu up 4": filtered_lrelu(UP24, DOWN12, 4),
    "filtered_lrelu up 2, radial": filtered_lrelu(UP12, RADIAL12, 2),
    "filtered_lrelu up 4, radial": filtered_lrelu(UP24, RADIAL12, 4),
    "filtered_lrelu up 2, bfloat16": filtered_lrelu(UP12, DOWN12, 2, dtype=torch.bfloat16),
    "filtered_lrelu up 2, training": filtered_lrelu(UP12, DOWN12, 2, training=True),
}


def missing() -> str | None:
    """Why instructions cannot be counted here; None if they can."""
    if ganops.backends()["cpu"] != "available":
        return ganops.backends()["cpu"]
    absent = [name for name in ("valgrind", compiler()) if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def compiler() -> str:
    return os.environ.get("CXX", "g++")


def count() -> dict[str, int]:
    """Today's counts, by the names of CASES. Takes half a minute of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        marks, out = Path(folder) / "marks.so", Path(folder) / "out"
        subprocess.run([compiler(), "-O1", "-shared", "-fPIC", str(MARKS), "-o", str(marks)], check=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        done = subprocess.run(
            [*command, sys.executable, __file__, "--marks", str(marks)],
            capture_output=True,
            text=True,
            env={**os.environ, "GANOPS_CPU_ISA": ISA, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            timeout=SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
        counts = {}
        for path in Path(folder).glob("out.*"):
            text = path.read_text()
            if marked := re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE):
                counts[marked[1]] = instructions(text)
        return {name: min(counts[f"{name} #{attempt}"] for attempt in range(ATTEMPTS)) for name in CASES}


def instructions(profile: str) -> int:
    """Of a callgrind profile, those in the library itself."""
    names: dict[str, str] = {}
    total, here, is_call = 0, False, False
    for line in profile.splitlines():
        if entry := re.match(r"ob=(\(\d+\))(?: (.+))?", line):
            names.setdefault(entry[1], entry[2] or "")
            here = names[entry[1]].endswith(LIBRARY)
        elif entry := re.match(r"cob=(\(\d+\)) (.+)", line):
            names[entry[1]] = entry[2]
        elif line.startswith("calls="):
            is_call = True  # the next line has the cost of what is called
        elif entry := re.match(r"[+*\-\d]\S* (\d+)$", line):
            total += int(entry[1]) if here and not is_call else 0
            is_call = False
    return total


def run_cases(marks_path: str) -> None:
    """Under callgrind: each case once to warm up, then counted, several times."""
    marks = ctypes.CDLL(marks_path)
    torch.set_num_threads(1)
    for case in CASES.values():
        case()
    marks.start_counting()
    held = []
    for name, case in CASES.items():
        for attempt in range(ATTEMPTS):
            held.append(torch.empty(2**attempt * SHIFT))  # so that the next attempt's memory lies elsewhere
            marks.count_from_zero()
            case()
            marks.save_counts(f"{name} #{attempt}".encode())


def today() -> dict[str, Any]:
    return {"compiler": ganops._gpu.build_info().compiler, "isa": ISA, "counts": count()}


def recorded() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(RECORD.read_text())
    return figures


def slower(known: dict[str, int], counts: dict[str, int]) -> list[str]:
    """What takes noticeably more instructions than recorded, or is not recorded."""
    said = [f"{name} is not recorded" for name in counts.keys() - known.keys()]
    said += [f"{name} is recorded but not counted" for name in known.keys() - counts.keys()]
    for name in known.keys() & counts.keys():
        if counts[name] > known[name] * (1 + TOLERANCE):
            said.append(f"{name}: {counts[name]} instructions, recorded {known[name]}")
    return sorted(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="make today's counts the recorded ones")
    parser.add_argument("--marks", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.marks:
        run_cases(args.marks)
    elif args.record:
        RECORD.write_text(json.dumps(today(), indent=1) + "\n")
    else:
        known = recorded()["counts"]
        for name, value in count().items():
            before = known.get(name)
            print(f"{name:34}{before or '':>12}{value:>12}" + (f"{value / before:8.3f}" if before else ""))


if __name__ == "__main__":
    main()
