"""The machine that is measured: its names, and the peaks that floors are computed from."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import ganops

from ..ops._convolution import torch_dtype

PRODUCT_SIZE = 2048  # of square matrices: 1 to 17 GFLOP in a cache-friendly ratio of 1 to 1000
COPY_BYTES = 2**28  # more than caches hold
PEAK_REPEATS = 5


@dataclass(frozen=True)
class Peaks:
    """What this machine did at most in this run: FLOPs a second of torch.mm, bytes a second of a copy (read, written).

    Products of 16-bit matrices have a rate of their own: ``flops`` is that of the dtype that is measured, where torch
    computes in it, else float32's.
    """

    flops: float
    bandwidth: float

    def floor_ms(self, flops: float, moved_bytes: float) -> float:
        """No implementation that does this work on this machine is faster."""
        return 1e3 * max(flops / self.flops, moved_bytes / self.bandwidth)


def measure_peaks(device: str, dtype: torch.dtype = torch.float32) -> Peaks:
    dtype = torch_dtype(torch.empty(0, dtype=dtype, device=device))
    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE).to(device, dtype) for _ in range(2))
    out = torch.empty_like(a)
    source = torch.ones(COPY_BYTES, dtype=torch.int8, device=device)
    target = torch.ones_like(source)
    flops = 2 * PRODUCT_SIZE**3 / _best_seconds(lambda: torch.mm(a, b, out=out), device)
    return Peaks(flops, 2 * COPY_BYTES / _best_seconds(lambda: target.copy_(source), device))


def _best_seconds(function: Callable[[], Any], device: str) -> float:
    def once() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    once()
    return min(once() for _ in range(PEAK_REPEATS))


def describe(device: str) -> dict[str, Any]:
    """What a reader needs to know to compare figures."""
    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "device": device,
        "threads": torch.get_num_threads(),
        "instruction_set": _instruction_set(),
        "malloc": "keeps freed memory" if keeps_freed_memory() else "default",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ganops": ganops.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
    }


def as_json(peaks: Peaks) -> dict[str, float]:
    return asdict(peaks)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def _instruction_set() -> str:
    return str(torch.ops.ganops.cpu_instruction_set()) if ganops.backends()["cpu"] == "available" else "none"


def commit() -> str:
    """Of the checkout that ganops is imported from, with a plus where it differs; "" for an installation."""
    folder = Path(ganops.__file__).parents[1]
    if not (folder / ".git").exists():
        return ""
    said = [
        subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
        for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    if any(done.returncode for done in said):
        return ""
    return said[0].stdout.strip() + ("+" if said[1].stdout.strip() else "")


# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 2_000_000_000
_kept = False


def keep_freed_memory() -> bool:
    """Make malloc reuse large blocks and not give them back to the system, whose fresh pages cost time.

    The same as MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2000000000. False where malloc is not glibc's.
    """
    global _kept
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    _kept = bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
    return _kept


def keeps_freed_memory() -> bool:
    return _kept or os.environ.get("MALLOC_MMAP_MAX_") == "0"
