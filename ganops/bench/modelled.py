"""Modelled times of the CUDA kernels on GPUs that nobody ran them on: arithmetic on counts and data sheets.

Counts are those of ``counted.json``: what the emulator counts of a launch (bytes of its buffers, wavefronts of shared
memory, multiply-adds of tensor cores), and which share of a kernel's machine code is float arithmetic. A lower bound is
the greatest of

    memory   every buffer once, at the memory's bandwidth
    FMA      the layer's FLOPs (``Call.flops``), two in a multiply-add, at the rate of the float units; left out where
             tensor cores do a part of them
    tensor   counted multiply-adds of tensor cores
    shared   counted wavefronts of shared memory, one in a cycle of a multiprocessor

"By mix" supposes that arithmetic (tensor cores' products, if there are any) has the same share of the executed
instructions as of the machine code, and that four schedulers issue one each in a cycle: an estimate, not a bound. A
convolution that torch does is taken at the peak. The unfused composition is charged the memory and the arithmetic of
each of its passes alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calls import ACTIVATION_FLOPS, Call, pair_of
from .gpus import GPUS, Gpu
from .networks import traced
from .parts import parts_of

COUNTED = Path(__file__).with_name("counted.json")
NETWORKS = ("sg2-256", "sg2-1024", "sg3t-256", "sg3t-1024", "sg3r-256", "sg3r-1024")
ELEMENT_BYTES = 2  # counts are of float16
WARP = 32
MMA_MACS = 16 * 8 * 16  # of one instruction, m16n8k16


@dataclass(frozen=True)
class Bound:
    """Modelled microseconds of a layer: the lower bound and what it is by, the estimate by mix, and the unfused way."""

    name: str
    shape: tuple[int, ...]
    kernel: str
    microseconds: float
    by: str
    mix: float | None
    unfused: float


def key(call: Call) -> str:
    """Layers that the same counts serve, but for the number of planes."""
    height, width = call.shapes["x"][2:]
    return f"{call.op} ({call.kind}) {height}x{width}"


def layers(name: str) -> list[Call]:
    """What a network does with images, as steps: kernels of our own, and convolutions."""
    found = []
    for call in traced(name).calls:
        if len(call.shapes["x"]) == 4:
            found += [call] if call.op == "filtered_lrelu" else [*parts_of(call), *([call] if call.weight else [])]
    return found


def counted() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(COUNTED.read_text())
    return content


def bound(call: Call, gpu: Gpu, counts: dict[str, Any]) -> Bound:
    unfused = 1e6 * sum(max(moved / gpu.bandwidth, flops / gpu.float_flops) for moved, flops in passes(call))
    if call.weight:
        times = {
            "memory": ELEMENT_BYTES * call.elements() / gpu.bandwidth,
            "tensor": call.product_flops() / gpu.tensor_flops,
        }
        by = max(times, key=lambda name: times[name])
        best = 1e6 * times[by]
        return Bound(str(call), call.shapes["x"], "convolution at the peak", best, by, None, best + unfused)
    launches, scale = _launches(call, counts)
    total, mix, names, bounds = 0.0, 0.0, [], []
    flops = call.flops() / len(launches)
    for launch in launches:
        times = {
            "memory": scale * launch["bytes"] / gpu.bandwidth,
            "FMA": 0.0 if launch["mma_macs"] else flops / gpu.float_flops,
            "tensor": scale * 2 * launch["mma_macs"] / gpu.tensor_flops,
            "shared": scale * launch["wavefronts"] / gpu.wavefronts,
        }
        by = max(times, key=lambda name: times[name])
        total += times[by]
        shares = counts["kernels"][launch["kernel"]][gpu.architecture]
        if launch["mma_macs"]:
            mix += scale * launch["mma_macs"] / MMA_MACS / shares["mma"] / gpu.instructions
        else:
            mix += flops / 2 / WARP / shares["arithmetic"] / gpu.instructions
        names.append(launch["kernel"])
        bounds.append(by)
    by = "+".join(dict.fromkeys(bounds))
    kernel = " + ".join(dict.fromkeys(names))
    return Bound(str(call), call.shapes["x"], kernel, 1e6 * total, by, 1e6 * mix or None, unfused)


def _launches(call: Call, counts: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """The counted launches of this layer, or of the nearest size that was counted; and how often they are done."""
    wanted = math.prod(call.output_shape())
    same = [entry for entry in counts["layers"].values() if (entry["op"], entry["kind"]) == (call.op, call.kind)]
    if not same:
        raise ValueError(f"{call} was not counted")
    side = math.sqrt(math.prod(call.output_shape()[2:]))
    nearest = min(same, key=lambda entry: abs(math.log(entry["side"] / side)))
    return nearest["launches"], wanted / nearest["outputs"]


def passes(call: Call) -> Iterable[tuple[float, float]]:
    """(bytes, FLOPs) of each pass over memory where every step is a kernel of its own.

    bias_act: bias, slope, gain, clamp. upfirdn2d: zeros are inserted, the image is padded, filtered and thinned out.
    filtered_lrelu: bias_act and both filterings by one kernel each. modulated_conv2d: styles, and what follows.
    """
    read, out = math.prod(call.shapes["x"]), math.prod(call.output_shape())
    for elements, flops in _PASSES[call.op](call, read, out):
        yield ELEMENT_BYTES * elements, flops


def _bias_act(call: Call, read: int, out: int) -> Iterable[tuple[float, float]]:
    return [(2 * out, out)] * ACTIVATION_FLOPS


def _upfirdn2d(call: Call, read: int, out: int) -> Iterable[tuple[float, float]]:
    up, down = (math.prod(pair_of(call.options.get(name, 1))) for name in ("up", "down"))
    steps: list[tuple[float, float]] = []
    if up > 1:
        steps.append((read + read * up, 0))  # inserts zeros
    steps.append((2 * read * up, 0))  # pads
    steps.append((read * up + out * down, call.flops() * up * down))  # meets the zeros, and makes what is dropped
    if down > 1:
        steps.append((2 * out, 0))
    return steps


def _filtered_lrelu(call: Call, read: int, out: int) -> Iterable[tuple[float, float]]:
    up, down = call.options.get("up", 1), call.options.get("down", 1)
    middle = max(read * up * up, out * down * down)
    flops = call.flops() - ACTIVATION_FLOPS * middle
    return [(2 * read, read), (read + middle, flops / 2), (2 * middle, 3 * middle), (middle + out, flops / 2)]


def _convolution(call: Call, read: int, out: int) -> Iterable[tuple[float, float]]:
    """Beside the convolution, the filtering and the activation, which are steps of their own here."""
    if call.op == "conv2d_resample":
        return []
    steps = [(2.0 * read, float(read))]
    if call.options.get("demodulate", True):
        steps.append((2.0 * out, float(out)))
    if "noise" in call.shapes:
        steps.append((2.0 * out, float(out)))
    return steps


_PASSES: dict[str, Callable[[Call, int, int], Iterable[tuple[float, float]]]] = {
    "bias_act": _bias_act,
    "upfirdn2d": _upfirdn2d,
    "filtered_lrelu": _filtered_lrelu,
    "modulated_conv2d": _convolution,
    "conv2d_resample": _convolution,
}


def print_bounds(names: Sequence[str], words: Sequence[str] = (), say: Callable[[str], Any] = print) -> None:
    """The table for these GPUs.

    Raises:
        ValueError: a GPU is not known, or no layer is named so.
    """
    for name in names:
        if name not in GPUS:
            raise ValueError(f"--model must be of {', '.join(GPUS)}, got {name!r}")
    chosen = {
        network: [call for call in layers(network) if not words or any(word in str(call) for word in words)]
        for network in NETWORKS
    }
    if not any(chosen.values()):
        raise ValueError("--filter: no layer is named so")
    counts = counted()
    say("MODELLED, not measured: nothing here has run on a GPU. Batch 1, float16, microseconds.")
    for name in names:
        gpu = GPUS[name]
        say(
            f"\n{name}: {gpu.float_flops / 1e12:.1f} TFLOP/s, {gpu.tensor_flops / 1e12:.0f} by tensor cores, "
            f"{gpu.bandwidth / 1e9:.0f} GB/s ({gpu.source})"
        )
        say(_line("layer", "shape", "at least", "bound by", "by mix", "unfused", "x", "kernel"))
        for network, calls in chosen.items():
            bounds = [bound(call, gpu, counts) for call in calls]
            for one, call in zip(bounds, calls, strict=True):
                say(_line(f"{one.name} ({call.kind})", "x".join(map(str, one.shape)), *_figures(one), one.kernel))
            if calls:
                total, unfused = sum(one.microseconds for one in bounds), sum(one.unfused for one in bounds)
                label = f"{network}, all of these, modelled"
                say(_line(label, "", f"{total:.1f}", "", "", f"{unfused:.1f}", f"{unfused / total:.2f}", ""))


def _figures(one: Bound) -> tuple[str, str, str, str, str]:
    mix = f"{one.mix:.1f}" if one.mix else ""
    return f"{one.microseconds:.1f}", one.by, mix, f"{one.unfused:.1f}", f"{one.unfused / one.microseconds:.2f}"


def _line(name: str, shape: str, least: str, by: str, mix: str, unfused: str, ratio: str, kernel: str) -> str:
    return f"{name:82}{shape:16}{least:>10}  {by:9}{mix:>8}{unfused:>10}{ratio:>7}  {kernel}".rstrip()
