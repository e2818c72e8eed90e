"""Drives a library of kernels on the emulator: settings in, launches with their diagnostics and counts out."""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ORDERS = {"forward": 0, "reverse": 1, "random": 2}
Index = tuple[int, int, int]

# Frames in these files are the emulator's and the wrappers' own; a diagnostic names the line that called them.
OWN_FILES = re.compile(r"csrc/(simt/|common/device)")


@dataclass
class Location:
    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass
class Diagnostic:
    """One thing that is wrong with a kernel; `count` tells how often the same instruction did it."""

    fault: str
    message: str
    kernel: str
    location: Location | None
    block: Index | None
    thread: Index | None
    count: int

    def __str__(self) -> str:
        where = f" at {self.location}" if self.location else ""
        who = f", block {self.block} thread {self.thread}" if self.block else ""
        return f"{self.fault}: {self.kernel}{where}{who}: {self.message} (x{self.count})"


@dataclass
class Access:
    """An instruction that accesses memory. Transactions are 32-byte sectors of global memory, or shared wavefronts."""

    memory: str
    write: bool
    buffer: str | None  # of global memory
    bytes: int
    executions: int
    lanes: int
    moved: int  # bytes of global memory, those that lanes of a warp share counted once
    transactions: int
    ideal: int
    location: Location | None

    @property
    def function(self) -> str:
        return self.location.function if self.location else ""

    def __str__(self) -> str:
        name = ("st" if self.write else "ld") + f".{self.memory}.{8 * self.bytes}"
        ratio = self.transactions / self.ideal
        return f"{self.location} {name} x{self.executions}: {self.transactions} of {self.ideal} ideal ({ratio:.2f})"


@dataclass
class Footprint:
    """What a block reads, or writes, of a buffer: distinct bytes and sectors, and the outermost bytes."""

    block: int
    write: bool
    first: int
    last: int
    bytes: int
    sectors: int


@dataclass
class BufferUse:
    """How much of a buffer was touched: distinct bytes. The buffer begins at byte ``start`` of a sector."""

    name: str
    bytes: int
    start: int
    bytes_read: int
    bytes_written: int
    footprints: list[Footprint]


@dataclass
class Moved:
    """Bytes of a buffer that are read from device memory, and written to it. Modelled."""

    read: int
    written: int


@dataclass
class Launch:
    kernel: str
    grid: Index
    block: Index
    shared_bytes: int
    error: int
    counters: dict[str, int]
    buffers: list[BufferUse] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def without_parameters(function: str) -> str:
    """The name of a demangled function: without its return type and parameters."""
    function = function.replace("(anonymous namespace)::", "")
    depth = 0
    for i in range(len(function) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(function[i], 0)
        if function[i] == "(" and depth == 0:
            function = function[:i]
            break
    return function.removeprefix("void ")


def symbolise(library: Path, addresses: Iterable[int]) -> dict[int, list[Location]]:
    """The inlined calls at each address, innermost first."""
    wanted = sorted(set(addresses))
    if not wanted:
        return {}
    command = ["addr2line", "-e", str(library), "-a", "-f", "-C", "-i"]
    text = subprocess.run(
        command, input="\n".join(map(hex, wanted)), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    frames: dict[int, list[Location]] = {}
    i = 0
    while i < len(text):
        if re.fullmatch(r"0x[0-9a-f]+", text[i]):
            current = frames.setdefault(int(text[i], 16), [])
            i += 1
            continue
        file, _, line = text[i + 1].split(" (discriminator")[0].rpartition(":")
        current.append(Location(without_parameters(text[i]), file, int(line) if line.isdigit() else 0))
        i += 2
    return frames


class Emulator:
    """The emulator that a library of kernels was linked with. Every library has its own settings and records."""

    def __init__(self, library: Path) -> None:
        self.path = library
        self.library = ctypes.CDLL(str(library))
        self.library.ganops_simt_configure.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint]
        self.library.ganops_simt_set_device.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64]
        self.library.ganops_simt_report.restype = ctypes.c_char_p
        self.library.ganops_simt_device_memory.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]
        self.library.ganops_simt_device_memory.restype = ctypes.c_char_p

    @property
    def checking(self) -> bool:
        """Whether this is a check build."""
        return bool(self.library.ganops_simt_checking())

    def configure(self, order: str = "forward", seed: int = 0, os_threads: int = 1) -> None:
        """Sets the order in which blocks and threads run ("forward", "reverse", "random"), and how many blocks at once.

        Raises:
            ValueError: the order is unknown, or os_threads is not positive.
        """
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
        if os_threads < 1:
            raise ValueError(f"os_threads must be at least 1, got {os_threads}")
        self.library.ganops_simt_configure(ORDERS[order], seed, os_threads)

    def set_device(self, compute_capability: int, multiprocessors: int, shared_bytes_per_block: int) -> None:
        """Sets the GPU that kernels are told they run on. At first it is an A100: 80, 108, 163 KiB."""
        self.library.ganops_simt_set_device(compute_capability, multiprocessors, shared_bytes_per_block)

    @contextlib.contextmanager
    def refusing(self, error: int) -> Iterator[None]:
        """Launches fail with this CUDA error, and run nothing."""
        self.library.ganops_simt_refuse(error)
        try:
            yield
        finally:
            self.library.ganops_simt_refuse(0)

    @contextlib.contextmanager
    def keeping_requests(self) -> Iterator[None]:
        """Launches of the check build keep their requests to the L2 cache, for ``device_memory``."""
        self.library.ganops_simt_keep_requests(1)
        try:
            yield
        finally:
            self.library.ganops_simt_keep_requests(0)

    def device_memory(self, launch: int, cache_bytes: int, resident_blocks: int) -> list[Moved]:
        """What a launch since the last clear moves between a cold L2 cache and device memory, by buffer. Modelled.

        Blocks start in order, so many at a time, and keep pace from barrier to barrier.
        """
        text = self.library.ganops_simt_device_memory(launch, cache_bytes, resident_blocks)
        return [Moved(**moved) for moved in json.loads(text)]

    def clear(self) -> None:
        """Forgets the launches so far."""
        self.library.ganops_simt_clear()

    def launches(self) -> list[Launch]:
        """The launches since the last clear, in order."""
        return self._named(self._records())

    def diagnostics(self) -> list[Diagnostic]:
        """What was wrong in the launches since the last clear."""
        faulty = self._named([record for record in self._records() if record["diagnostics"]])
        return [diagnostic for launch in faulty for diagnostic in launch.diagnostics]

    def _records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = json.loads(self.library.ganops_simt_report())
        return records

    def _named(self, records: list[dict[str, Any]]) -> list[Launch]:
        # A recorded pc is where a call returns to, so the call itself lies a byte before it.
        calls = [e["pc"] - 1 for r in records for e in r["diagnostics"] + r["accesses"] if e["pc"] is not None]
        frames = symbolise(self.path, [*calls, *(r["kernel"] for r in records)])

        def location(pc: int | None) -> Location | None:
            if pc is None:
                return None
            inlined = frames[pc - 1]
            return next((f for f in inlined if not OWN_FILES.search(f.file)), inlined[0])

        launches = []
        for record in records:
            kernel = frames[record["kernel"]][-1].function
            grid, block = tuple(record["grid"]), tuple(record["block"])
            launch = Launch(kernel, grid, block, record["shared_bytes"], record["error"], record["counters"])
            for entry in record["buffers"]:
                footprints = [Footprint(**one) for one in entry.pop("footprints")]
                launch.buffers.append(BufferUse(footprints=footprints, **entry))
            for entry in record["accesses"]:
                index = entry.pop("buffer")
                name = None if index is None else launch.buffers[index].name
                launch.accesses.append(Access(location=location(entry.pop("pc")), buffer=name, **entry))
            launch.accesses.sort(key=lambda a: (str(a.location), a.memory, a.write))
            for entry in record["diagnostics"]:
                for key in ("block", "thread"):
                    entry[key] = tuple(entry[key]) if entry[key] else None
                launch.diagnostics.append(Diagnostic(kernel=kernel, location=location(entry.pop("pc")), **entry))
            launches.append(launch)
        return launches
