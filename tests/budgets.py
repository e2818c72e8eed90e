"""What the CUDA kernels may cost: recorded figures, today's figures, and the tables of both.

python tests/budgets.py            prints registers, shared memory, occupancy, instructions, counted bytes, floors
python tests/budgets.py --record   makes today's figures the recorded ones (budgets.json)

Registers, spills and instructions are nvcc's. Bytes, sectors and wavefronts are counted by the emulator on shapes like
those of the networks. Occupancies and floors are arithmetic on published figures of the GPUs, not measurements:
"modelled". Bytes are those that threads ask for, caches or not, over those of all tensors of the launch.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nvcc
import torch
from cases import BLUR, DOWN12, RADIAL12, UP12, UP24
from simt_emulator import Launch
from simt_ops import emulated_ops
from torch import Tensor

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


def occupancy(gpu: Gpu, registers: int, shared_bytes: int, threads: int) -> float:
    """The share of a multiprocessor's warps that can be resident. Modelled."""
    warps = -(-threads // WARP)
    quarter = gpu.registers // 4 // round_up(registers * WARP, REGISTERS_AT_A_TIME)  # warps a scheduler has room for
    shared = gpu.shared_bytes // round_up(shared_bytes + SHARED_RESERVED, SHARED_AT_A_TIME)
    blocks = min(4 * quarter // warps, shared, gpu.warps // warps, gpu.blocks)
    return blocks * warps / gpu.warps


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


def convolution(out: int, kernel: int, channels_last: bool, up: int = 1, down: int = 1) -> None:
    """64 channels in; padded as the layers of StyleGAN2 are."""
    x, weight = image(1, 64, 16, 16, channels_last=channels_last), image(out, 64, kernel, kernel)
    padding = [kernel - 1, kernel - up] * 2 if up > 1 else [0 if down > 1 else kernel // 2] * 4
    epilogue = ("linear", 0.0, 1.0, -1.0) if up > 1 else ("lrelu", 0.2, 1.4, 256.0)
    scales = image(1, 64), image(1, out)
    torch.ops.ganops_simt.scaled_conv2d(x, weight, *scales, None, image(out), up, down, padding, *epilogue)


def upfirdn2d(f: Tensor, channels_last: bool, **options: Any) -> None:
    ganops.upfirdn2d(image(1, 64 if channels_last else 8, 64, 64, channels_last=channels_last), f, **options)


def filtered_lrelu(fu: Tensor, fd: Tensor, up: int, down: int) -> None:
    padding = 18 if 4 in (up, down) else 17  # as layers of StyleGAN3 have it, where their samples lie
    x = image(1, 4, 64, 64)
    both_ways(ganops.filtered_lrelu, x, fu, fd, image(4), up=up, down=down, padding=padding, clamp=256.0)


# Calls whose launches are counted: what the networks do, in float16.
CALLS: dict[str, Callable[[], None]] = {}
for _last, _format in ((False, "planes"), (True, "channels last")):
    CALLS[f"bias_act, {_format}"] = functools.partial(bias_act, _last)
    CALLS[f"epilogue, {_format}"] = functools.partial(epilogue, _last)
    CALLS[f"upfirdn2d blur, {_format}"] = functools.partial(upfirdn2d, BLUR, _last, padding=[2, 1, 2, 1])
    CALLS[f"upfirdn2d up 2, {_format}"] = functools.partial(upfirdn2d, BLUR, _last, up=2, padding=[2, 1, 2, 1])
    CALLS[f"upfirdn2d down 2, {_format}"] = functools.partial(upfirdn2d, BLUR, _last, down=2, padding=1)
    CALLS[f"upfirdn2d 12 taps, up 2, {_format}"] = functools.partial(upfirdn2d, UP12, _last, up=2, padding=6)
    CALLS[f"upfirdn2d 12 taps, down 2, {_format}"] = functools.partial(upfirdn2d, DOWN12, _last, down=2, padding=5)
    CALLS[f"scaled_conv2d 3x3, {_format}"] = functools.partial(convolution, 128, 3, _last)
    CALLS[f"scaled_conv2d 3x3, up 2, {_format}"] = functools.partial(convolution, 64, 3, _last, up=2)
    CALLS[f"scaled_conv2d 3x3, down 2, {_format}"] = functools.partial(convolution, 64, 3, _last, down=2)
    CALLS[f"scaled_conv2d 1x1 to RGB, {_format}"] = functools.partial(convolution, 3, 1, _last)
for _fu, _fd, _up, _down in ((UP12, DOWN12, 2, 2), (UP24, DOWN12, 4, 2)):
    CALLS[f"filtered_lrelu up {_up}, down {_down}"] = functools.partial(filtered_lrelu, _fu, _fd, _up, _down)
for _fu, _up in ((UP12, 2), (UP24, 4)):
    CALLS[f"filtered_lrelu up {_up}, radial down 2"] = functools.partial(filtered_lrelu, _fu, RADIAL12, _up, 2)


COUNTS = ("bytes", "sectors", "wavefronts")


@dataclass(frozen=True)
class Counted:
    """A launch, counted: bytes against every tensor once, sectors and wavefronts against the fewest possible."""

    call: str
    kernel: str
    launch: Launch
    floor_bytes: int
    bytes: float
    sectors: float
    wavefronts: float


def count(call: str) -> list[Counted]:
    """The launches of a call of CALLS, in order."""
    emulator = emulated_ops("simt")
    emulator.configure()
    emulator.clear()
    with ganops.backend("simt"):
        CALLS[call]()
    counted = []
    for launch in emulator.launches():
        counters = launch.counters
        floor = sum(buffer.bytes for buffer in launch.buffers)
        counted.append(
            Counted(
                call,
                nvcc.readable_name(launch.kernel),
                launch,
                floor,
                (counters["global_bytes_read"] + counters["global_bytes_written"]) / floor,
                counters["global_sectors"] / counters["global_sectors_ideal"],
                counters["shared_wavefronts"] / max(counters["shared_wavefronts_ideal"], 1),
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
            counted[f"{call} #{number}: {c.kernel}"] = {what: round(getattr(c, what), 3) for what in COUNTS}
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
    print(
        f"{'call':40}{'kernel':62}{'bytes':>8}{'sectors':>8}{'wavefr.':>8}{'floor KB':>9}{'GMAC':>9}{floors} modelled"
    )
    for c in counted:
        macs = c.launch.counters["mma_macs"]
        times = (max(c.floor_bytes / gpu.bandwidth, macs / gpu.tensor_macs) for gpu in GPUS)
        print(
            f"{c.call:40}{c.kernel:62}{c.bytes:8.3f}{c.sectors:8.3f}{c.wavefronts:8.3f}{c.floor_bytes / 1024:9.0f}"
            f"{macs / 1e9:9.3f}" + "".join(f"{1e6 * time:9.2f} us" for time in times)
        )


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
