"""How cost grows: with pixels, channels and batch, which should be linear, and what a second thread brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .calls import Call
from .jobs import Functions, Job, Settings, native, operator_job
from .networks import traced
from .parts import parts_of

FACTORS = (1, 2, 4)
ONE_THREAD = "1 thread"
# A large layer of each operator, by the end of its name.
LAYERS = {
    "sg3t-256": ["L8_148_512 filtered_lrelu"],
    "sg3r-256": ["L9_148_724 filtered_lrelu"],
    "sg2-256": ["b128.conv1 modulated_conv2d", "b256.conv0 upfirdn2d", "b256.conv1 bias_act"],
}


def scaling_jobs(settings: Settings, quick: bool) -> list[Job]:
    """A layer with a quarter of its pixels, of its channels and all of them, then several images, by 1 thread and by
    all."""
    jobs = []
    for name, ends in LAYERS.items():
        calls = [step for call in traced(name).calls for step in (call, *parts_of(call))]
        for call in calls:
            if not any(str(call).endswith(end) for end in ends):
                continue
            for what, scale in _SCALES.items():
                for factor in FACTORS[: 2 if quick else None]:
                    scaled = replace(scale(call, factor), layer=f"{call.layer} {what} x{factor}")
                    job = replace(operator_job(scaled, settings), series=f"{call}, {what}")
                    jobs.append(_on_threads(job, native(settings.device)))
    return jobs


def _pixels(call: Call, factor: int) -> Call:
    """``factor`` quarters of the layer's pixels, by its height."""
    shapes = dict(call.shapes)
    for name in ("x", "noise"):
        if name in shapes:
            *first, height, width = shapes[name]
            shapes[name] = (*first, height * factor // FACTORS[-1], width)
    return replace(call, shapes=shapes)


def _channels(call: Call, factor: int) -> Call:
    """``factor`` quarters of the channels; a convolution's outputs, as its inputs are part of every product, too."""
    shapes = dict(call.shapes)
    scaled = ["weight", "bias"] if call.weight else ["b"]
    for name in scaled:
        if name in shapes:
            shapes[name] = (shapes[name][0] * factor // FACTORS[-1], *shapes[name][1:])
    if not call.weight:
        n, c, *size = shapes["x"]
        shapes["x"] = (n, c * factor // FACTORS[-1], *size)
    return replace(call, shapes=shapes)


def _batch(call: Call, factor: int) -> Call:
    shapes = dict(call.shapes)
    for name in ("x", "styles"):
        if name in shapes:
            shapes[name] = (factor, *shapes[name][1:])
    return replace(call, shapes=shapes)


_SCALES: dict[str, Callable[[Call, int], Call]] = {"pixels": _pixels, "channels": _channels, "batch": _batch}


def _on_threads(job: Job, main: str) -> Job:
    """The main implementation, or the first where that is not timed, by one thread, too."""
    threads = torch.get_num_threads()

    def prepare() -> Functions:
        functions = job.prepare()
        if threads > 1:
            functions[ONE_THREAD] = _limited(functions.get(main) or next(iter(functions.values())), threads)
        return functions

    return replace(job, prepare=prepare, beside=[ONE_THREAD])


def _limited(function: Callable[[], Any], threads: int) -> Callable[[], Any]:
    def run() -> Any:
        torch.set_num_threads(1)
        try:
            return function()
        finally:
            torch.set_num_threads(threads)

    return run
