"""The emulator's own test kernels in tests/simt: building, calling and judging them."""

from __future__ import annotations

import ctypes
import functools

import torch
from simt_build import ROOT, build
from simt_emulator import Emulator

KERNELS = ROOT / "tests" / "simt"
SOURCES = [KERNELS / f"{name}.cu" for name in ("bugs", "clean", "counts", "lanes", "numbers")]
SCHEDULES = [("forward", 0), ("reverse", 0), ("random", 1)]
CHECK_BUILDS = ["check", "check-ucontext"]
ALL_BUILDS = [*CHECK_BUILDS, "fast", "fast-ucontext"]


@functools.cache
def emulator_of(name: str) -> Emulator:
    """The test kernels in the build of this name."""
    return Emulator(build(SOURCES, check=name.startswith("check"), ucontext=name.endswith("ucontext")))


def prepare(emulator: Emulator, order: str = "forward", seed: int = 0, os_threads: int = 1) -> None:
    """Sets the schedule and forgets earlier launches."""
    torch.set_num_threads(1)
    emulator.configure(order, seed, os_threads)
    emulator.clear()


def call(emulator: Emulator, name: str, *arguments: torch.Tensor | int | bytes) -> int:
    """Runs a launcher of the test kernels and returns the launch's error."""
    converted = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in arguments]
    return int(getattr(emulator.library, name)(*converted))


def assert_clean(emulator: Emulator, launches: int) -> None:
    """So many launches since the last clear, and nothing wrong with any."""
    records = emulator.launches()
    assert len(records) == launches
    assert [str(d) for record in records for d in record.diagnostics] == []
    assert [record.error for record in records] == [0] * launches
