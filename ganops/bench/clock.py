"""Times functions in turn, so that a busy machine slows them alike; and what memory they take at most."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MEBI = 2**20
L2_FLUSH_BYTES = 256 * MEBI  # more than any GPU's L2 cache holds
WARM_UPS_BEFORE_CAPTURE = 3


@dataclass
class Timed:
    """Milliseconds of each run, the most memory above what was held before, in MiB, and how far the result lies from
    the first implementation's, over that one's RMS; or why there is none."""

    milliseconds: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    difference: float | None = None
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.milliseconds) < 2:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return first, third


class CpuClock:
    """Wall time on this process's threads."""

    def prepare(self, function: Callable[[], Any]) -> Callable[[], float]:
        def timed() -> float:
            begin = time.perf_counter()
            function()
            return (time.perf_counter() - begin) * 1e3

        return timed

    def first_run(self, function: Callable[[], Any]) -> tuple[Any, float | None]:
        """Its result and its peak of resident memory, as Linux keeps it; None elsewhere."""
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is taken now
        try:
            Path("/proc/self/clear_refs").write_text("5")  # makes the peak what is resident now
            before = _resident("VmHWM")
        except (OSError, ValueError):
            return function(), None
        result = function()
        return result, max(0.0, _resident("VmHWM") - before)


def _resident(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {name} in /proc/self/status")


class CudaClock:
    """GPU time between events: the run is a graph's replay where it can be captured, on a flushed L2 cache.

    It has not run on a GPU.
    """

    def __init__(self, cuda: Any = torch.cuda, empty: Callable[..., Any] = torch.empty) -> None:
        self._cuda = cuda
        self._flush = empty(L2_FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def prepare(self, function: Callable[[], Any]) -> Callable[[], float]:
        run = self._captured(function)
        start, end = self._cuda.Event(enable_timing=True), self._cuda.Event(enable_timing=True)

        def timed() -> float:
            self._flush.zero_()
            start.record()
            run()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

        return timed

    def _captured(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """The replay of a graph, without the time to launch kernels; the function itself where it cannot be one."""
        side = self._cuda.Stream()
        side.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(side):
            for _ in range(WARM_UPS_BEFORE_CAPTURE):
                function()
        self._cuda.current_stream().wait_stream(side)
        graph = self._cuda.CUDAGraph()
        try:
            with self._cuda.graph(graph):
                function()
        except RuntimeError as error:
            print(f"no graph, launches are timed as well: {str(error).splitlines()[0]}", file=sys.stderr)
            return function
        replay: Callable[[], Any] = graph.replay
        return replay

    def first_run(self, function: Callable[[], Any]) -> tuple[Any, float | None]:
        """Its result and torch's peak of memory on the GPU."""
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        before = self._cuda.memory_allocated()
        result = function()
        self._cuda.synchronize()
        return result, float(self._cuda.max_memory_allocated() - before) / MEBI


Clock = CpuClock | CudaClock


def measure(
    functions: dict[str, Callable[[], Any]],
    clock: Clock,
    repeat: int,
    seconds: float,
) -> dict[str, Timed]:
    """Times each function ``repeat`` times, in turn; fewer, at least once, where that takes more than ``seconds``.

    Every other round goes backwards, so that none always has the caches as the same other left them. Each runs once
    before, which warms it up and tells its peak of memory. A function that raises has an error instead of times, and
    the others go on. An interrupt ends the rounds; it is raised again if nothing was measured so far.
    """
    results = {name: Timed() for name in functions}
    timers: dict[str, Callable[[], float]] = {}
    expected: Any = None
    for name, function in functions.items():
        try:
            result, results[name].peak_mib = clock.first_run(function)
            timers[name] = clock.prepare(function)
        except Exception as error:
            results[name].error = in_one_line(error)
            continue
        if expected is None:
            expected = result
        elif isinstance(expected, Tensor):
            results[name].difference = relative_difference(result, expected)
        del result
    del expected
    begin = time.perf_counter()
    try:
        for done in range(repeat):
            if done and time.perf_counter() - begin > seconds:
                break
            for name, timer in list(timers.items())[:: -1 if done % 2 else 1]:
                try:
                    results[name].milliseconds.append(timer())
                except Exception as error:
                    results[name] = Timed(error=in_one_line(error))
                    del timers[name]
    except KeyboardInterrupt:
        if not any(timed.milliseconds for timed in results.values()):
            raise
        for timed in results.values():
            if not timed.milliseconds:
                timed.error = timed.error or "interrupted"
        raise Interrupted(results) from None
    return results


def relative_difference(actual: Any, expected: Tensor) -> float | None:
    """Greatest absolute difference over the RMS of what is expected; None where shapes differ."""
    actual = torch.as_tensor(actual)
    if actual.shape != expected.shape:
        return None
    expected = expected.detach().double()
    scale = expected.square().mean().sqrt().clamp_min(1e-300)
    return float((actual.detach().to(expected) - expected).abs().max() / scale)


class Interrupted(Exception):
    """The user stopped a measurement; ``results`` is what it has."""

    def __init__(self, results: dict[str, Timed]) -> None:
        super().__init__("interrupted")
        self.results = results


def in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
