"""What the CUDA kernels may cost: recorded figures, today's figures, and the tables of both.

python tests/budgets.py            prints registers, shared memory, occupancy, instructions, counted bytes, floors
python tests/budgets.py --record   makes today's figures the recorded ones (budgets.json)

Registers, spills and instructions are nvcc's. Bytes, sectors and wavefronts are counted by the emulator on shapes of
the networks' layers, with few channels. Occupancies and floors are arithmetic on published figures of the GPUs, not
measurements: "modelled".

bytes      that warps move, over those of all buffers once; the halo, which several blocks read, is apart
sectors    that warps touch, over those that the rows of their blocks' boxes lie in: of the worst tensor
wavefronts of shared memory, over those that the bytes need: of all loops but copies
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nvcc
import torch
from cases import BLUR, DOWN12, UP12, UP24, _filtered_lrelu_on_network
from simt_emulator import Launch
from simt_ops import emulated_ops
from torch import Tensor
from traffic import OPERANDS, Axis, Resampling, Traffic, bytes_ratio, halo_ratio, traffic_of

import ganops

RECORD = Path(__file__).with_name("budgets.json")


@dataclass(frozen=True)
class Gpu:
    """Limits of a multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".

    Rates are of the data sheets: bytes of memory a second, multiply-adds of tensor cores in float16 a second.
    """

    name: str
    architecture: str
    shared_bytes: int
    bandwidth: float
    tensor_macs: float
    registers: int = 65536
    warps: int = 64
    blocks: int = 32


GPUS = (Gpu("A100", "sm_80", 164 * 1024, 1.555e12, 156e12), Gpu("H100", "sm_90", 228 * 1024, 3.35e12, 495e12))
WARP, REGISTERS_AT_A_TIME, SHARED_AT_A_TIME, SHARED_RESERVED = 32, 256, 128, 1024


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def resident_blocks(gpu: Gpu, registers: int, shared_bytes: int, threads: int) -> int:
    """The blocks that a multiprocessor has room for. Modelled."""
    warps = -(-threads // WARP)
    quarter = gpu.registers // 4 // round_up(registers * WARP, REGISTERS_AT_A_TIME)  # warps a scheduler has room for
    shared = gpu.shared_bytes // round_up(shared_bytes + SHARED_RESERVED, SHARED_AT_A_TIME)
    return min(4 * quarter // warps, shared, gpu.warps // warps, gpu.blocks)


def occupancy(gpu: Gpu, registers: int, shared_bytes: int, threads: int) -> float:
    """The share of a multiprocessor's warps that can be resident. Modelled."""
    return resident_blocks(gpu, registers, shared_bytes, threads) * -(-threads // WARP) / gpu.warps


def image(*shape: int, channels_last: bool = False, dtype: torch.dtype = torch.float16) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last) if channels_last else values


def both_ways(function: Callable[..., Tensor], x: Tensor, *args: Any, **options: Any) -> None:
    y = function(x.requires_grad_(), *args, **options)
    torch.autograd.grad(y, x, torch.ones_like(y))


def bias_act(channels_last: bool) -> None:
    x = image(2, 64, 32, 32, channels_last=channels_last)
    both_ways(ganops.bias_act, x, image(64), act="lrelu", clamp=256.0)


def epilogue(channels_last: bool) -> None:
    x, scale, noise, b = image(2, 64, 32, 32, channels_last=channels_last), image(2, 64), image(1, 1, 32, 32), image(64)
    torch.ops.ganops_simt.modulated_conv2d_epilogue(x, scale, noise, b, "lrelu", 0.2, 1.4, 256.0)


def convolution() -> None:
    """An early layer: its image is one tile. Others are counted in test_scaled_conv2d_cuda.py."""
    x, weight, scale = image(1, 256, 8, 8, channels_last=True), image(256, 256, 3, 3), image(1, 256)
    torch.ops.ganops_simt.scaled_conv2d(
        x, weight, scale, scale, image(1, 1, 8, 8), image(256), 1, 1, [1, 1, 1, 1], "lrelu", 0.2, 1.4, 256.0
    )


def upfirdn2d(size: int, f: Tensor, padding: list[int], up: int = 1, down: int = 1, **of: Any) -> list[Resampling]:
    channels_last = of.get("channels_last", False)
    channels = 64 if channels_last else 2
    y = ganops.upfirdn2d(image(1, channels, size, size, **of), f, up, down, [*padding, *padding])
    axis = Axis(size, up, 1, padding[0], down, f.shape[-1])
    return [Resampling(axis, axis, y.shape[2], y.shape[3], channels, y.element_size(), channels_last)]


def filtered_lrelu(
    size: int, out: int, up: int, radial: bool = False, dtype: torch.dtype = torch.float16
) -> list[Resampling]:
    channels = 2 if out < 200 else 1
    case = _filtered_lrelu_on_network("", 1, channels, size, out, up, 2, radial)
    tensors = case.tensors(dtype)
    y = case.run(tensors)
    torch.autograd.grad(y, list(tensors.values()), torch.ones_like(y))
    up_taps, down_taps = case.options["fu"].shape[-1], case.options["fd"].shape[-1]
    axis = Axis(size, up, up_taps, case.options["padding"][0], 2, down_taps)
    samples = size * up + sum(case.options["padding"][:2]) - (up_taps - 1)
    element_bytes = y.element_size()
    forward = Resampling(axis, axis, out, out, channels, element_bytes, False, True, samples, samples)
    return [forward, forward.mirrored()]


# Calls whose launches are counted: what the networks do, in float16 unless they say otherwise. They return which inputs
# each launch's outputs depend on, or nothing where blocks need what they read.
CALLS: dict[str, Callable[[], list[Resampling] | None]] = {}
for _last, _format in ((False, "planes"), (True, "channels last")):
    CALLS[f"bias_act, {_format}"] = functools.partial(bias_act, _last)
    CALLS[f"epilogue, {_format}"] = functools.partial(epilogue, _last)
    for _name, _size, _options in (
        ("blur 129", 129, {"padding": [1, 1]}),
        ("blur 128", 128, {"padding": [2, 2]}),
        ("up 2", 64, {"padding": [2, 1], "up": 2}),
        ("down 2", 128, {"padding": [1, 1], "down": 2}),
    ):
        CALLS[f"upfirdn2d {_name}, {_format}"] = functools.partial(
            upfirdn2d, _size, BLUR, channels_last=_last, **_options
        )
CALLS["scaled_conv2d, channels last"] = convolution
for _size in (257, 256, 513):
    CALLS[f"upfirdn2d blur {_size}"] = functools.partial(upfirdn2d, _size, BLUR, [1, 1] if _size % 2 else [2, 2])
CALLS["upfirdn2d blur 257, float32"] = functools.partial(upfirdn2d, 257, BLUR, [1, 1], dtype=torch.float32)
# Longer filters; of augmented images, which are planes in float32, those of 12 taps.
for _name, _size, _f, _options in (
    ("12 taps, up 2", 148, UP12, {"padding": [6, 5], "up": 2}),
    ("12 taps, down 2", 266, DOWN12, {"padding": [0, 0], "down": 2}),
    ("24 taps, up 4", 64, UP24, {"padding": [12, 11], "up": 4}),
    ("24 taps, down 4", 256, UP24, {"padding": [10, 10], "down": 4}),
):
    for _dtype in (torch.float16, torch.float32) if _f.numel() == 12 else (torch.float16,):
        CALLS[f"upfirdn2d {_name}, {str(_dtype).removeprefix('torch.')}"] = functools.partial(
            upfirdn2d, _size, _f, dtype=_dtype, **_options
        )
# StyleGAN3-T convolves by 3x3, which leaves a margin of one pixel a side; R by 1x1.
for _size, _out, _up in ((38, 36, 2), (38, 52, 4), (54, 52, 2), (86, 84, 2), (86, 148, 4), (150, 148, 2),
                         (150, 276, 4), (278, 276, 2), (534, 532, 2)):  # fmt: skip
    CALLS[f"filtered_lrelu T, {_size} to {_out}"] = functools.partial(filtered_lrelu, _size, _out, _up)
for _size, _out, _up in ((36, 36, 2), (36, 52, 4), (84, 84, 2), (84, 148, 4), (276, 276, 2)):
    CALLS[f"filtered_lrelu R, {_size} to {_out}"] = functools.partial(filtered_lrelu, _size, _out, _up, True)
CALLS["filtered_lrelu T, 150 to 148, float32"] = functools.partial(filtered_lrelu, 150, 148, 2, dtype=torch.float32)


# What a launch may be counted at.
LIMITS = {"bytes": 1.15, "sectors": 1.10, "wavefronts": 1.10}
# Functions that copy tiles between memories. Lanes skip turns there, after which the emulator has them out of step.
COPIES = re.compile(r"\b(load|store)_box\b")


@dataclass(frozen=True)
class Counted:
    """A launch, counted: ratios as in this file's docstring, and what they come from."""

    call: str
    kernel: str
    launch: Launch
    traffic: list[Traffic]
    floor_bytes: int
    bytes: float
    halo: float
    sectors: float
    wavefronts: float


def count(call: str) -> list[Counted]:
    """The launches of a call of CALLS, in order."""
    emulator = emulated_ops("simt")
    emulator.configure()
    emulator.clear()
    with ganops.backend("simt"):
        resamplings = CALLS[call]()
    counted = []
    for number, launch in enumerate(emulator.launches()):
        traffic = traffic_of(launch, resamplings[number] if resamplings else None)
        loops = [a for a in launch.accesses if a.memory == "shared" and not COPIES.search(a.function)]
        counted.append(
            Counted(
                call,
                nvcc.readable_name(launch.kernel),
                launch,
                traffic,
                sum(buffer.bytes for buffer in launch.buffers),
                bytes_ratio(traffic),
                halo_ratio(traffic),
                max(t.sector_ratio for t in traffic if t.buffer not in OPERANDS),
                sum(a.transactions for a in loops) / max(sum(a.ideal for a in loops), 1),
            )
        )
    return counted


def key(instance: nvcc.Instance) -> str:
    return f"{instance.op}: {instance.name}"


def today() -> dict[str, Any]:
    """Today's figures, as budgets.json holds them."""
    compiled: dict[str, dict[str, Any]] = {}
    for instance in nvcc.instances():
        compiled.setdefault(key(instance), {})[instance.architecture] = {
            "registers": instance.registers,
            "stack": instance.stack,
            "spills": instance.spills,
            "wide_loads": instance.has_wide_loads,
        }
    counted = {}
    for call in CALLS:
        for number, c in enumerate(count(call)):
            counted[f"{call} #{number}: {c.kernel}"] = {what: round(getattr(c, what), 3) for what in LIMITS}
    return {"compiled": compiled, "counted": counted}


def recorded() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(RECORD.read_text())
    return figures


def print_compiled(launches: dict[str, Launch]) -> None:
    mix = ("LDG.128", "LDGSTS.128", "LDG.64", "LDG.32", "LDG.16", "STG.128", "LDS.128", "LDSM", "HMMA", "FFMA")
    print(f"{'instance':78}{'arch':>6}{'regs':>5}{'stack':>6}{'spills':>7}{'shared':>7}{'occup.':>7}{'instr':>6}  mix")
    for instance in nvcc.instances():
        gpu = next(gpu for gpu in GPUS if gpu.architecture == instance.architecture)
        launch = launches.get(instance.name)
        shared, share = "", ""
        if launch:
            shared = str(launch.shared_bytes)
            threads = launch.block[0] * launch.block[1] * launch.block[2]
            share = f"{occupancy(gpu, instance.registers, launch.shared_bytes, threads):.0%}"
        counts = ", ".join(f"{name} {instance.instructions[name]}" for name in mix if instance.instructions[name])
        print(
            f"{key(instance):78}{instance.architecture:>6}{instance.registers:5}{instance.stack:6}{instance.spills:7}"
            f"{shared:>7}{share:>7}{instance.instructions.total():6}  {counts}"
        )


def print_counted(counted: list[Counted]) -> None:
    floors = "".join(f"{gpu.name + ' floor':>12}" for gpu in GPUS)
    heads = "".join(f"{name:>8}" for name in ("bytes", "halo", "sectors", "wavefr."))
    print(f"{'call':40}{'kernel':62}{heads}{'floor KB':>9}{'GMAC':>9}{floors} modelled")
    for c in counted:
        macs = c.launch.counters["mma_macs"]
        times = (max(c.floor_bytes / gpu.bandwidth, macs / gpu.tensor_macs) for gpu in GPUS)
        ratios = "".join(f"{ratio:8.3f}" for ratio in (c.bytes, c.halo, c.sectors, c.wavefronts))
        floors = "".join(f"{1e6 * time:9.2f} us" for time in times)
        print(f"{c.call:40}{c.kernel:62}{ratios}{c.floor_bytes / 1024:9.0f}{macs / 1e9:9.3f}{floors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="make today's figures the recorded ones")
    torch.set_num_threads(1)
    if parser.parse_args().record:
        RECORD.write_text(json.dumps(today(), indent=1) + "\n")
        return
    counted = [c for call in CALLS for c in count(call)]
    launches = {c.kernel: c.launch for c in counted}
    if reason := nvcc.missing():
        print(f"no figures of the compiler, {reason}")
    else:
        print_compiled(launches)
    print()
    print_counted(counted)


if __name__ == "__main__":
    main()
