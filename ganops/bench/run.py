"""Measures jobs one after another, prints a line for each, and keeps what it has when it is interrupted."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import report as reports
from .clock import Clock, Interrupted, Timed, in_one_line, measure
from .jobs import Job
from .report import Report, Row


@dataclass(frozen=True)
class Effort:
    """How often to measure: ``repeat`` times, less where that takes more than ``seconds`` a job."""

    repeat: int = 7
    seconds: float = 20.0


def run_jobs(
    jobs: Sequence[Job],
    result: Report,
    clock: Clock,
    effort: Effort,
    main: str,
    others: Sequence[str],
    say: Callable[[str], Any] = print,
) -> bool:
    """Appends a row to the report for each job. False if the user interrupted it."""
    import tqdm  # type: ignore[import-untyped]

    say(reports.columns(others))
    with tqdm.tqdm(total=len(jobs), unit="case", leave=False, disable=None) as bar:
        for job in jobs:
            bar.set_postfix_str(job.name[:40])
            interrupted = False
            try:
                times = _measure(job, clock, effort)
            except Interrupted as stopped:
                times, interrupted = stopped.results, True
            except KeyboardInterrupt:
                return False
            if times:
                row = Row.of(job, result.peaks[job.dtype], main, times)
                result.rows.append(row)
                bar.clear()
                say(reports.line(row, others))
            if interrupted:
                return False
            bar.update()
    return True


def _measure(job: Job, clock: Clock, effort: Effort) -> dict[str, Timed]:
    try:
        functions = job.prepare()
    except Exception as error:  # one job that cannot be prepared does not end the others
        return {"preparation": Timed(error=in_one_line(error))}
    try:
        return measure(functions, clock, effort.repeat, effort.seconds)
    finally:
        functions.clear()
        gc.collect()


def finish(result: Report, others: Sequence[str], say: Callable[[str], Any] = print) -> None:
    """The sums of groups, then remarks."""
    for row in reports.totals(result.rows):
        say(reports.line(row, others))
    for text in _unique(reports.remarks(result.rows)):
        say(text)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
