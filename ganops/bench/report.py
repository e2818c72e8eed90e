"""What a run measured: rows, the table that a person reads, and the file that a later run is compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .clock import Timed
from .jobs import Job
from .machine import Peaks

FORMAT = 1
NAME_WIDTH, SHAPE_WIDTH = 82, 16


@dataclass
class Row:
    """A job, measured. ``main`` is the implementation that the row's figures are of; others are ratios to it."""

    name: str
    shape: list[int]
    dtype: str
    kind: str
    flops: float
    bytes: float
    floor_ms: float
    main: str
    times: dict[str, Timed]
    group: str = ""
    count: int = 1
    series: str = ""

    @classmethod
    def of(cls, job: Job, peaks: Peaks, main: str, times: dict[str, Timed]) -> Row:
        chosen = main if main in times else next(iter(times))
        figures = job.flops, job.bytes, job.floor_ms(peaks)
        place = job.group, job.count, job.series
        return cls(job.name, [*job.shape], job.dtype, job.kind, *figures, chosen, times, *place)

    @property
    def identity(self) -> str:
        return f"{self.name} {self.shape} {self.dtype} {self.kind}"

    def median(self, name: str) -> float | None:
        timed = self.times.get(name)
        return timed.median if timed and timed.milliseconds else None

    def ratio(self, name: str) -> float | None:
        """How many times longer this implementation takes than the main one."""
        mine, other = self.median(self.main), self.median(name)
        return other / mine if mine and other else None


def totals(rows: Iterable[Row]) -> list[Row]:
    """A row for each group of several: medians times counts, over what every implementation measured alike."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.group and row.median(row.main) is not None:
            groups.setdefault(row.group, []).append(row)
    found = []
    for group, members in groups.items():
        if sum(row.count for row in members) < 2:
            continue
        first, times = members[0], {}
        for name in first.times:
            medians = [(row.median(name), row.count) for row in members]
            if all(median is not None for median, _ in medians):
                times[name] = Timed([sum(median * count for median, count in medians if median is not None)])
        sums = [sum(getattr(row, what) * row.count for row in members) for what in ("flops", "bytes", "floor_ms")]
        found.append(Row(f"sum of {group}", [], first.dtype, first.kind, sums[0], sums[1], sums[2], first.main, times))
    return found


@dataclass
class Report:
    """A run: the machine, its peaks for each dtype, what was asked for, and the rows."""

    machine: dict[str, Any]
    peaks: dict[str, Peaks]
    options: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        content = {
            "format": FORMAT,
            "machine": self.machine,
            "peaks": {name: vars(peaks) for name, peaks in self.peaks.items()},
            "options": self.options,
            "rows": [{**vars(row), "times": {n: vars(t) for n, t in row.times.items()}} for row in self.rows],
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Reads what :meth:`save` wrote.

        Raises:
            ValueError: the file is not of that kind.
        """
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            rows = [Row(**{**r, "times": {n: Timed(**t) for n, t in r["times"].items()}}) for r in content["rows"]]
            peaks = {name: Peaks(**values) for name, values in content["peaks"].items()}
            return cls(content["machine"], peaks, content["options"], rows)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no file that --json wrote ({error})") from None


def heading(report: Report) -> list[str]:
    machine = report.machine
    said = [str(machine[key]) for key in ("processor", "instruction_set")]
    said += [f"{machine['threads']} threads", f"malloc: {machine['malloc']}"]
    said += [f"{name} {machine[name]}" for name in ("torch", "ganops")]
    said += [f"commit {machine['commit']}"] if machine["commit"] else []
    lines = [", ".join(said) + f", {machine['date']}"]
    lines += [
        f"peaks, {name}: {peaks.flops / 1e9:.0f} GFLOP/s (torch.mm), {peaks.bandwidth / 1e9:.1f} GB/s (copy)"
        for name, peaks in report.peaks.items()
    ]
    return lines


def columns(others: Sequence[str]) -> str:
    ratios = "".join(f"{'x ' + name:>15}" for name in others)
    return (
        f"{'case':{NAME_WIDTH}} {'shape':{SHAPE_WIDTH}} {'dtype':9}{'pass':17}{'ms':>10}{'quartiles':>18}"
        f"{'GB/s':>7}{'GFLOP/s':>9}{'% floor':>8}{'MiB':>7}{ratios}"
    )


def line(row: Row, others: Sequence[str]) -> str:
    timed = row.times[row.main]
    shape = "x".join(map(str, row.shape))
    start = f"{row.name:{NAME_WIDTH}} {shape:{SHAPE_WIDTH}} {row.dtype:9}{row.kind:17}"
    if not timed.milliseconds:
        return f"{start}{row.main}: {timed.error}"
    ms, (first, third) = timed.median, timed.quartiles
    spread = f"{_figure(first)} - {_figure(third)}" if len(timed.milliseconds) > 1 else "one run" * bool(row.shape)
    rates = [f"{row.bytes / ms / 1e6:.1f}", f"{row.flops / ms / 1e6:.1f}", f"{100 * row.floor_ms / ms:.0f}"]
    cells = [cell if row.floor_ms else "" for cell in rates]
    memory = "" if timed.peak_mib is None else f"{timed.peak_mib:.0f}"
    figures = f"{_figure(ms):>10}{spread:>18}{cells[0]:>7}{cells[1]:>9}{cells[2]:>8}{memory:>7}"
    return start + figures + "".join(f"{_cell(row, name):>15}" for name in others)


def _cell(row: Row, name: str) -> str:
    if name not in row.times:
        return ""
    ratio = row.ratio(name)
    return "failed" if ratio is None else f"{ratio:.2f}"


def _figure(ms: float) -> str:
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}" if ms < 1000 else f"{ms:.0f}"


def remarks(rows: Iterable[Row]) -> list[str]:
    """What a table has no room for: why an implementation failed, how far results lie apart, what others' memory is."""
    said = []
    for row in rows:
        for name, timed in row.times.items():
            if timed.error and name != row.main:
                said.append(f"{row.name}: {name} failed: {timed.error}")
        peaks = {name: t.peak_mib for name, t in row.times.items() if t.peak_mib is not None}
        if len(peaks) > 1 and not row.group:
            said.append(
                f"{row.name} {row.dtype}: peak MiB " + ", ".join(f"{name} {v:.0f}" for name, v in peaks.items())
            )
        apart = {name: t.difference for name, t in row.times.items() if t.difference is not None}
        if apart and not row.group:
            first = next(iter(row.times))
            far = ", ".join(f"{name} {value:.1e}" for name, value in apart.items())
            said.append(f"{row.name} {row.dtype}: greatest difference from {first}, over its RMS: {far}")
    return said


NOTICEABLE = 0.05


def compare(old: Report, new: Report) -> list[str]:
    """Rows of both, with the ratio of their medians, those that changed most first; noise is not told from change."""
    before = {row.identity: row for row in old.rows}
    found = []
    for row in new.rows:
        earlier = before.pop(row.identity, None)
        now, then = row.median(row.main), earlier.median(row.main) if earlier else None
        if now and then:
            found.append((then / now, row, then, now))
    lines = [f"compared with commit {old.machine['commit'] or 'unknown'} of {old.machine['date']}"]
    differing = [key for key in ("processor", "threads", "malloc", "torch") if old.machine[key] != new.machine[key]]
    lines += [f"not the same {key}: {old.machine[key]}, now {new.machine[key]}" for key in differing]
    for ratio, row, then, now in sorted(found, key=lambda entry: entry[0]):
        word = "slower" if ratio < 1 - NOTICEABLE else "faster" if ratio > 1 + NOTICEABLE else "alike"
        lines.append(f"{word:7}{ratio:6.2f}x  {_figure(then):>9} -> {_figure(now):>9} ms  {row.identity}")
    if before:
        lines.append(f"{len(before)} of its rows were not measured now")
    return lines
