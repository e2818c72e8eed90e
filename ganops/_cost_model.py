"""Which way a GPU computes a modulated convolution: our one kernel, or torch's convolution between two further passes.

Both ways are priced in seconds, from bytes, multiply-adds and the peaks of the GPU:

    kernel:  max(multiply-adds of whole tiles / rate, bytes of x, weight and y once / bandwidth)
    torch:   the same without tiles, and the passes that scale x and finish y, each a read and a write; planes of 16-bit
             data go into channels_last for cuDNN and back, another two

What a GPU was measured to do (``_tuning``) corrects the comparison. The shares of the peaks are assumptions, made
without a GPU to measure on.
"""

import functools
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import _backend, _tuning
from ._compile import constant_result
from ._formats import memory_format
from ._setting import Setting

# Multiply-adds of a multiprocessor in a cycle, by compute capability: float16 on tensor cores, float32 without them.
# NVIDIA's architecture white papers and data sheets, for dense matrices and sums in float32.
TENSOR_RATE = {75: 512, 80: 1024, 86: 512, 87: 512, 89: 512, 90: 2048, 100: 4096, 103: 4096, 120: 512, 121: 512}
FLOAT_RATE = {75: 64, 80: 64}
LATER_FLOAT_RATE = 128

# Assumed. The share of the tensor cores' rate that mma.sync can have where newer instructions feed them.
MMA_SHARE = {90: 0.6, 100: 0.25, 103: 0.25}
# Assumed. The shares of the peaks that the main loops and the passes over memory reach, and the time of a launch.
KERNEL_SHARE, TORCH_SHARE, BANDWIDTH_SHARE, LAUNCH_SECONDS = 0.6, 0.75, 0.85, 3e-6
KERNEL_LAUNCHES, TORCH_LAUNCHES = 2, 4

# The kernel's tiles, as csrc/scaled_conv2d has them: pixels of a block, its output channels by the bytes of an element,
# and the bytes of the input channels that it takes at a time.
TILE_PIXELS, TILE_CHANNELS, ROW_BYTES = 128, {2: (32, 64, 128), 4: (32, 128)}, 64
MOST_TAPS = 7  # along an axis: beyond them tiles are mostly border


@dataclass(frozen=True)
class Gpu:
    """What the model knows of a GPU: clock in Hz, bandwidth in bytes a second."""

    name: str
    capability: int  # 80 for 8.0
    multiprocessors: int
    clock: float
    bandwidth: float

    def tensor_rate(self) -> float:
        """Multiply-adds in float16 a second. A GPU newer than the table is taken for its newest."""
        known = max((c for c in TENSOR_RATE if c <= self.capability), default=min(TENSOR_RATE))
        return TENSOR_RATE[known] * self.multiprocessors * self.clock

    def float_rate(self) -> float:
        return FLOAT_RATE.get(self.capability, LATER_FLOAT_RATE) * self.multiprocessors * self.clock


@dataclass(frozen=True)
class Convolution:
    """Shapes of a convolution; height and width are x's."""

    samples: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    up: int
    down: int
    element_bytes: int
    channels_last: bool

    def out_pixels(self) -> int:
        """Of one sample, but for what padding adds."""
        return self.height * self.up // self.down * (self.width * self.up // self.down)

    def in_bytes(self) -> int:
        return self.samples * self.in_channels * self.height * self.width * self.element_bytes

    def out_bytes(self) -> int:
        return self.samples * self.out_channels * self.out_pixels() * self.element_bytes

    def weight_bytes(self) -> int:
        return self.kernel_height * self.kernel_width * self.in_channels * self.out_channels * self.element_bytes

    def taps(self) -> float:
        """That an output meets on average: the rest meets inserted zeros."""
        return self.kernel_height * self.kernel_width / self.up**2

    def kind(self) -> str:
        """Convolutions whose times are as far from the model: "16-bit 3x3"."""
        return f"{8 * self.element_bytes}-bit {self.kernel_height}x{self.kernel_width}"


def tile_of(c: Convolution, multiprocessors: int) -> tuple[int, int]:
    """The output channels of a block that the kernel chooses, and how many the busiest multiprocessor makes in all."""
    widest = next((tile for tile in TILE_CHANNELS[c.element_bytes] if c.out_channels <= tile), 128)
    tiles = math.ceil(c.samples * c.out_pixels() / TILE_PIXELS)

    def work_of_one(channels: int) -> int:
        return math.ceil(tiles * math.ceil(c.out_channels / channels) / multiprocessors) * channels

    halved = c.element_bytes == 2 and widest == 128 and work_of_one(64) < work_of_one(128)
    chosen = 64 if halved else widest
    return chosen, work_of_one(chosen)


def kernel_seconds(c: Convolution, gpu: Gpu) -> float:
    """Modelled time of our kernel."""
    depth = ROW_BYTES // c.element_bytes
    macs_of_channel = TILE_PIXELS * c.taps() * math.ceil(c.in_channels / depth) * depth
    # Every multiprocessor does a block at a time: the last round may leave many idle.
    _, channels = tile_of(c, gpu.multiprocessors)
    share = KERNEL_SHARE * (MMA_SHARE.get(gpu.capability, 1.0) if c.element_bytes == 2 else 1.0)
    rate = share * (gpu.tensor_rate() if c.element_bytes == 2 else gpu.float_rate())
    compute = channels * macs_of_channel * gpu.multiprocessors / rate
    moved = c.in_bytes() + c.out_bytes() + 3 * c.weight_bytes()  # packing writes the weights and reads them before
    return max(compute, moved / (BANDWIDTH_SHARE * gpu.bandwidth)) + KERNEL_LAUNCHES * LAUNCH_SECONDS


def torch_seconds(c: Convolution, gpu: Gpu, allow_tf32: bool) -> float:
    """Modelled time of torch's convolution and the passes around it."""
    rate = TORCH_SHARE * gpu.float_rate()
    if c.element_bytes == 2:
        rate = TORCH_SHARE * gpu.tensor_rate()
    elif allow_tf32 and gpu.capability >= 80:
        rate = TORCH_SHARE * gpu.tensor_rate() / 2
    macs = c.samples * c.out_channels * c.out_pixels() * c.taps() * c.in_channels
    bandwidth = BANDWIDTH_SHARE * gpu.bandwidth
    convolution = max(macs / rate, (c.in_bytes() + c.out_bytes() + c.weight_bytes()) / bandwidth)
    passes = 2 if c.element_bytes == 2 and not c.channels_last else 1
    return convolution + passes * 2 * (c.in_bytes() + c.out_bytes()) / bandwidth + TORCH_LAUNCHES * LAUNCH_SECONDS


_forced: Setting[bool | None] = Setting("forced_kernel", None)


def forced(kernel: bool) -> AbstractContextManager[None]:
    """Take one of the ways inside a ``with`` block, whatever the model says."""
    return _forced.use(kernel)


@constant_result
def _forced_choice() -> bool | None:
    return _forced.get()


@functools.cache
def gpu_of(device: torch.device) -> Gpu:
    known = torch.cuda.get_device_properties(device)
    bandwidth = 2 * known.memory_clock_rate * 1e3 * known.memory_bus_width / 8  # two transfers in a cycle
    capability = known.major * 10 + known.minor
    return Gpu(known.name, capability, known.multi_processor_count, known.clock_rate * 1e3, bandwidth)


@functools.cache
def _is_compiled() -> bool:
    return _backend.why_not("cuda", "scaled_conv2d") is None


def kernel_wins(c: Convolution, gpu: Gpu, allow_tf32: bool) -> bool:
    """Whether our kernel is the faster way, by the model and what was measured; never for float64."""
    if max(c.kernel_height, c.kernel_width) > MOST_TAPS or c.element_bytes not in TILE_CHANNELS:
        return False
    return kernel_seconds(c, gpu) * _tuning.correction(gpu.name, c.kind()) < torch_seconds(c, gpu, allow_tf32)


def shapes_of(x: Tensor, weight: Tensor, up: int, down: int) -> Convolution:
    return Convolution(*_numbers(x, weight, up, down))


def _numbers(x: Tensor, weight: Tensor, up: int, down: int) -> tuple[Any, ...]:
    """The fields of a Convolution."""
    out_channels, _, kernel_height, kernel_width = weight.shape
    is_last = memory_format(x) == torch.channels_last
    return (*x.shape, out_channels, kernel_height, kernel_width, up, down, x.element_size(), is_last)


@constant_result
def _wins_on(device: torch.device, allow_tf32: bool, *numbers: Any) -> bool:
    return _is_compiled() and kernel_wins(Convolution(*numbers), gpu_of(device), allow_tf32)


def prefers_kernel(x: Tensor, weight: Tensor, up: int, down: int) -> bool:
    """Whether scaled_conv2d's kernel is to convolve x, rather than torch. False where a size is not known yet."""
    choice: bool | None = _forced_choice()
    if choice is not None:
        return choice
    if x.device.type != "cuda" or x.numel() == 0:
        return False
    if any(isinstance(size, torch.SymInt) for size in (*x.shape, *weight.shape)):
        return False
    return _wins_on(x.device, bool(torch.backends.cudnn.allow_tf32), *_numbers(x, weight, up, down))
