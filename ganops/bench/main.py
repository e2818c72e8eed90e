"""From the arguments of the command to a run and its results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import ganops

from . import machine, modelled, report, runtimes, suites
from .clock import Clock, CpuClock, CudaClock
from .jobs import DTYPES, Job, Settings, native
from .peers import load_peer
from .report import Report
from .run import Effort, finish, run_jobs

QUICK_REPEAT = 3
IMPLEMENTATIONS = ("reference", "compile", "cpu", "cuda", *runtimes.RUNTIMES)


def bench(args: argparse.Namespace) -> bool:
    """False if the user interrupted it.

    Raises:
        ValueError: an argument makes no sense here; the text says which.
    """
    if args.model:
        modelled.print_bounds(args.model, args.filter)
        return True
    old = Report.load(_existing(args.compare)) if args.compare else None
    for path in (args.json, args.plot):
        if path and not path.parent.is_dir():
            raise ValueError(f"folder {str(path.parent)!r} does not exist")
    settings = _settings(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.malloc == "keep" and not machine.keep_freed_memory():
        raise ValueError("--malloc keep: this system's malloc has no such setting")
    jobs = suites.jobs(args.suite, settings, args.quick, args.batch, args.filter)
    result = _start(args, jobs)
    clock: Clock = CudaClock() if args.device == "cuda" else CpuClock()
    effort = Effort(QUICK_REPEAT if args.quick else args.repeat, args.seconds)
    main = native(args.device)
    names = [
        *settings.implementations,
        *(peer.name for peer in settings.peers),
        *(n for job in jobs for n in job.beside),
    ]
    others = [name for name in dict.fromkeys(names) if name != main]
    print(*report.heading(result), sep="\n")
    complete = run_jobs(jobs, result, clock, effort, main, others)
    finish(result, others)
    _save(args, result)
    if old:
        print(*report.compare(old, result), sep="\n")
    return complete


def _start(args: argparse.Namespace, jobs: Sequence[Job]) -> Report:
    names = list(dict.fromkeys(job.dtype for job in jobs))
    peaks = {name: machine.measure_peaks(args.device, DTYPES[name]) for name in names}
    options = {key: getattr(args, key) for key in ("suite", "dtype", "repeat", "seconds", "batch", "quick", "peer")}
    return Report(machine.describe(args.device), peaks, options)


def _save(args: argparse.Namespace, result: Report) -> None:
    if args.json:
        result.save(args.json)
    if args.plot:
        from .plot import save_plot

        save_plot(result, args.plot)


def _settings(args: argparse.Namespace) -> Settings:
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device cuda: {ganops.backends()['cuda']}")
    state = ganops.backends()[native(args.device)]
    own = [native(args.device)] if state == "available" else []
    chosen = args.impl or ["reference", *own]
    for name in chosen:
        if name not in IMPLEMENTATIONS:
            raise ValueError(f"--impl must be of {', '.join(IMPLEMENTATIONS)}, got {name!r}")
        if name in ("cpu", "cuda") and name not in own:
            raise ValueError(f"--impl {name}: {state if name == native(args.device) else 'needs --device ' + name}")
        if name in runtimes.RUNTIMES and (reason := runtimes.missing(name)):
            raise ValueError(f"--impl {name}: {reason}")
    return Settings(args.device, args.dtype, args.backward, chosen, [load_peer(text) for text in args.peer])


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    return path
