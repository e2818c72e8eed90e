"""What the CUDA convolution moves on layers of the networks, over x, weights and y once each.

python tests/convolution_traffic.py          prints a table of all layers; some minutes
python tests/convolution_traffic.py TEXT     of those whose name contains the text

bytes     that threads ask for, counted
sectors   of 32 bytes that warps request of the L2 cache, counted
memory    what of these requests reaches device memory, modelled: csrc/simt/README.md says how. The cache is cold, and
          as many blocks are resident as registers (nvcc's) and shared memory allow.
half      the same with half of the cache

Packing the weights is a launch of its own before this one, which reads and writes them once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import nvcc
import torch
from budgets import GPUS, Gpu, image, recorded, resident_blocks
from simt_ops import emulated_ops

OS_THREADS = 2


@dataclass(frozen=True)
class Device:
    """A GPU as its launches and its L2 cache see it."""

    gpu: Gpu
    compute_capability: int
    multiprocessors: int
    shared_bytes_per_block: int
    cache_bytes: int


A100 = Device(GPUS[0], 80, 108, 163 * 1024, 40 * 2**20)
# The registers of sm_80 stand in for those of sm_75, which has as many.
T4 = Device(Gpu("T4", "sm_80", 64 * 1024, 0.32e12, 32.5e12, warps=32, blocks=16), 75, 40, 64 * 1024, 4 * 2**20)
# An A100's cache has two halves. Each may hold what its own multiprocessors read: the least that there is.
HALF_A_CACHE = 2


@dataclass(frozen=True)
class Layer:
    """greatest_on_t4: device memory that a T4 may move, modelled, over x, weights and y once each."""

    channels: int
    out_channels: int
    size: int
    greatest_on_t4: float
    taps: int = 3
    up: int = 1
    down: int = 1
    samples: int = 1
    channels_last: bool = False
    dtype: torch.dtype = torch.float16

    def __str__(self) -> str:
        resampling = f" up {self.up}" * (self.up > 1) + f" down {self.down}" * (self.down > 1)
        samples = f"{self.samples} x " * (self.samples > 1)
        shape = f"{samples}{self.channels} to {self.out_channels}, {self.taps}x{self.taps}{resampling}"
        kind = f"{str(self.dtype).removeprefix('torch.')}, {'channels last' if self.channels_last else 'planes'}"
        return f"{shape}, {self.size}x{self.size}, {kind}"

    @property
    def macs(self) -> int:
        return self.samples * self.channels * self.out_channels * (self.taps * self.size) ** 2 // self.down**2

    def run(self) -> None:
        """Calls the emulator, padded as modulated_conv2d does around a resampling filter."""
        full = [self.taps - 1, self.taps - self.up] * 2
        padding = full if self.up > 1 else [0 if self.down > 1 else self.taps // 2] * 4
        n, o, i = self.samples, self.out_channels, self.channels
        x = image(n, i, self.size, self.size, channels_last=self.channels_last, dtype=self.dtype)
        weight = image(o, i, self.taps, self.taps, dtype=torch.float32)
        scales = image(n, i, dtype=torch.float32), image(n, o, dtype=torch.float32)
        b = image(o, dtype=torch.float32)
        torch.ops.ganops_simt.scaled_conv2d(
            x, weight, *scales, None, b, self.up, self.down, padding, "lrelu", 0.2, 1.4, 256.0
        )


@dataclass(frozen=True)
class Moved:
    """Ratios as in this file's docstring."""

    bytes: float
    sectors: float
    resident_blocks: int
    memory: float
    memory_by_half: float
    memory_of: dict[str, float]  # read and written, by buffer, over its bytes


def moved(layer: Layer, device: Device) -> Moved:
    emulator = emulated_ops("simt")
    emulator.configure(os_threads=OS_THREADS)
    emulator.clear()
    emulator.set_device(device.compute_capability, device.multiprocessors, device.shared_bytes_per_block)
    with emulator.keeping_requests():
        layer.run()
    emulator.set_device(A100.compute_capability, A100.multiprocessors, A100.shared_bytes_per_block)
    emulator.configure()
    number, launch = 1, emulator.launches()[1]  # after packing
    assert not launch.diagnostics
    kernel = recorded()["compiled"][f"scaled_conv2d: {nvcc.readable_name(launch.kernel)}"]
    resident = device.multiprocessors * resident_blocks(
        device.gpu, kernel[device.gpu.architecture]["registers"], launch.shared_bytes, launch.block[0]
    )
    once = sum(buffer.bytes for buffer in launch.buffers if buffer.name in ("x", "packed", "y"))

    def memory(cache_bytes: int) -> dict[str, int]:
        buffers = emulator.device_memory(number, cache_bytes, resident)
        return {used.name: b.read + b.written for used, b in zip(launch.buffers, buffers, strict=True)}

    whole = memory(device.cache_bytes)
    return Moved(
        (launch.counters["global_bytes_read"] + launch.counters["global_bytes_written"]) / once,
        launch.counters["global_sectors"] * 32 / once,
        resident,
        sum(whole.values()) / once,
        sum(memory(device.cache_bytes // HALF_A_CACHE).values()) / once,
        {buffer.name: whole[buffer.name] / buffer.bytes for buffer in launch.buffers},
    )


def layers() -> list[Layer]:
    """Of both formats in float16, and some in float32."""
    float16 = []
    for last in (False, True):
        float16 += [
            Layer(512, 512, 64, 2.4, channels_last=last),
            Layer(256, 256, 128, 2.0, channels_last=last),
            Layer(128, 128, 256, 1.2, channels_last=last),
            Layer(512, 512, 16, 1.2, channels_last=last),
            Layer(512, 512, 16, 2.1, samples=8, channels_last=last),
            Layer(256, 128, 64, 1.2, up=2, channels_last=last),
            Layer(64, 32, 128, 1.2, up=2, channels_last=last),
            Layer(64, 32, 512, 1.2, up=2, channels_last=last),
            Layer(32, 64, 1025, 1.2, down=2, channels_last=last),
            Layer(512, 512, 148, 1.3, taps=1, channels_last=last),
            Layer(64, 3, 256, 1.2, taps=1, channels_last=last),
        ]
    return [
        *float16,
        Layer(64, 64, 64, 1.2, dtype=torch.float32),
        Layer(128, 64, 32, 1.2, up=2, dtype=torch.float32),
        Layer(128, 128, 64, 1.2, taps=1, dtype=torch.float32, channels_last=True),
    ]


LAYERS = layers()
GREATEST_ON_A100 = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="", help="layers whose name contains it")
    text = parser.parse_args().text
    torch.set_num_threads(1)
    print(f"{'layer':60}{'GPU':>6}{'bytes':>8}{'sectors':>8}{'blocks':>7}{'memory':>8}{'half':>7}  modelled: by buffer")
    for layer in LAYERS:
        if text not in str(layer):
            continue
        for device in (A100, T4):
            m = moved(layer, device)
            by_buffer = ", ".join(f"{name} {m.memory_of[name]:.2f}" for name in ("x", "packed", "y"))
            print(
                f"{layer!s:60}{device.gpu.name:>6}{m.bytes:8.2f}{m.sectors:8.2f}{m.resident_blocks:7}{m.memory:8.3f}"
                f"{m.memory_by_half:7.3f}  {by_buffer}",
                flush=True,
            )


if __name__ == "__main__":
    main()
