"""Modulated convolutions never hold weights of all samples: counted at torch's allocator."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import BLUR, Case
from test_ops import gradients
from torch.profiler import ProfilerActivity, profile

import ganops

SAMPLES, CHANNELS, SIZE, FILTERS = 64, 96, 3, 2
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"padding": 1, "act": "lrelu"},
    "up2": {"up": 2, "padding": 1, "resample_filter": BLUR, "flip_weight": False},
    "down2": {"down": 2, "padding": 1, "resample_filter": BLUR, "prenormalize": "rms"},
    "no-demodulation": {"padding": 1, "demodulate": False},
}
CASES = [
    pytest.param(op, options, n, id=f"{op}-{name}-{n}")
    for op in ("modulated_conv2d", "adaptive_modulated_conv2d")
    for name, options in OPTIONS.items()
    for n in (1, SAMPLES)
]


def case(op: str, options: dict[str, Any], n: int) -> Case:
    """More weights than pixels, so that weights of all samples would be the largest tensor by far."""
    shapes: dict[str, tuple[int, ...]] = {
        "x": (n, CHANNELS, SIZE, SIZE),
        "weight": (CHANNELS, CHANNELS, 3, 3),
        "styles": (n, CHANNELS),
        "bias": (CHANNELS,),
    }
    if op.startswith("adaptive"):
        shapes |= {"weight": (FILTERS, *shapes["weight"]), "logits": (n, FILTERS)}
    return Case(op, "memory", shapes, options)


def allocations(function: Callable[[], object]) -> tuple[int, int]:
    """The largest allocation and the peak of all, in bytes, while function runs and its result lives."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = function()
    del kept
    events = profiled.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    peak = now = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        now += change
        peak = max(peak, now)
    return max(change for _, change in changes), peak


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(("op", "options", "n"), CASES)
def test_no_weights_of_all_samples(op: str, options: dict[str, Any], n: int, order: int) -> None:
    layer = case(op, options, n)
    tensors = layer.tensors(torch.float32)
    largest, peak = allocations(lambda: gradients(layer, tensors, order))
    allowed = max(math.prod(shape) for shape in layer.shapes.values())
    allowed = max(allowed, n * CHANNELS * (2 * SIZE + 3) ** 2)  # what is upsampled, and its border
    assert largest <= allowed * 4
    if n > 1:
        assert peak < n * CHANNELS**2 * 9 * 4


def test_the_reference_has_them() -> None:
    layer = case("modulated_conv2d", OPTIONS["plain"], SAMPLES)
    with ganops.backend("reference"):
        largest, _ = allocations(lambda: gradients(layer, layer.tensors(torch.float32), 0))
    assert largest == SAMPLES * CHANNELS**2 * 9 * 4
