"""A picture of a report: the roofline with a dot for each row, and bars of how much faster the rows are."""

from __future__ import annotations

from pathlib import Path

from .calls import OPERATORS
from .report import Report, Row

MOST_BARS = 40


def save_plot(report: Report, path: Path) -> None:
    """Writes a PNG. matplotlib is needed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = [row for row in report.rows if row.median(row.main)]
    bars = _slowest([row for row in measured if len(row.times) > 1])
    series = list(dict.fromkeys(row.series for row in measured if row.series))
    parts = 3 if series else 2
    figure, axes = pyplot.subplots(1, parts, figsize=(9 * parts, max(6.0, 0.3 * len(bars) + 2)))
    _roofline(axes[0], report, measured)
    _bars(axes[1], bars)
    for name in series:
        points = [row for row in measured if row.series == name]
        axes[2].plot([row.flops / 1e9 for row in points], [row.median(row.main) for row in points], "o-", label=name)
    if series:
        axes[2].set(xscale="log", yscale="log", xlabel="GFLOP", ylabel="ms", title="growth (measured)", aspect="equal")
        axes[2].legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    machine = report.machine
    figure.suptitle(f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _slowest(rows: list[Row]) -> list[Row]:
    """The picture has room for so many; in the order they were measured."""
    kept = sorted(rows, key=lambda row: -(row.median(row.main) or 0))[:MOST_BARS]
    return [row for row in rows if any(row is one for one in kept)]


def _operator(row: Row) -> str:
    return next((op for op in OPERATORS if f" {op}" in row.name), "network")


def _roofline(axes: object, report: Report, rows: list[Row]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    rows = [row for row in rows if row.flops and row.bytes]
    for name in dict.fromkeys(map(_operator, rows)):
        dots = [row for row in rows if _operator(row) == name]
        x = [row.flops / row.bytes for row in dots]
        y = [row.flops / (row.median(row.main) or 1) / 1e6 for row in dots]
        axes.scatter(x, y, s=14, label=name)
    for name, peaks in report.peaks.items():
        ridge = peaks.flops / peaks.bandwidth
        span = [0.1, ridge, max(1000.0, 10 * ridge)]
        axes.plot(span, [min(peaks.flops, x * peaks.bandwidth) / 1e9 for x in span], label=f"peak, {name}")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="GFLOP/s", title="roofline (measured)")
    axes.legend(fontsize=8)


def _bars(axes: object, rows: list[Row]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    others = list(dict.fromkeys(name for row in rows for name in row.times if name != row.main))
    height = 0.8 / max(1, len(others))
    for i, name in enumerate(others):
        places = [(j + i * height, row.ratio(name)) for j, row in enumerate(rows)]
        known = [(place, ratio) for place, ratio in places if ratio]
        axes.barh([place for place, _ in known], [ratio for _, ratio in known], height, label=f"over {name}")
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_yticks(range(len(rows)), [f"{row.name} {row.dtype}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="times as fast", title="speed-up (measured)")
    if others:
        axes.legend(fontsize=8)
