"""upfirdn2d's CUDA kernels on the emulator: every path against the float64 reference, and what each one moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from cases import BLUR, DOWN12, DTYPES, FORMATS, RADIAL12, TOLERANCE, UP12, UP24, relative_error
from hypothesis import given, settings
from simt_emulator import Emulator, Launch
from simt_kernels import SCHEDULES
from simt_ops import emulated_ops
from torch import Tensor

import ganops

PLANES, CHANNELS_LAST = FORMATS
SKEWED4 = torch.tensor([[1.0, 2, 3, 4], [2, 5, 1, 3], [4, 1, 2, 2], [3, 3, 1, 1]]) / 38


@dataclass(frozen=True)
class Call:
    shape: tuple[int, ...]
    f: Tensor
    up: int = 1
    down: int = 1
    padding: tuple[int, ...] = (0, 0, 0, 0)
    flip: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        return ganops.upfirdn2d(x, self.f, self.up, self.down, list(self.padding), self.flip, gain=1.5)

    def x(self, dtype: torch.dtype, memory_format: torch.memory_format = PLANES) -> Tensor:
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return x.to(dtype).contiguous(memory_format=memory_format)


# By path: up, down, taps and whether the kernel is separable.
PATHS = {
    "Fir<1, 1, 4, false": Call((2, 3, 37, 35), SKEWED4, padding=(2, 1, 1, 3)),
    "Fir<2, 1, 4, false": Call((2, 3, 19, 21), SKEWED4, up=2, padding=(3, 2, 2, 1), flip=True),
    "Fir<1, 2, 4, false": Call((2, 3, 38, 41), SKEWED4, down=2, padding=(1, 1, 2, 1)),
    "Fir<1, 1, 12, true": Call((1, 3, 29, 45), UP12, padding=(6, 5, 4, 7)),
    "Fir<2, 1, 12, true": Call((1, 3, 20, 37), UP12, up=2, padding=(7, 4, 6, 5)),
    "Fir<1, 2, 12, true": Call((1, 3, 40, 71), DOWN12, down=2, padding=(5, 5, 6, 4), flip=True),
    "Fir<4, 1, 24, true": Call((1, 3, 11, 19), UP24, up=4, padding=(13, 10, 12, 11)),
    "Fir<1, 4, 24, true": Call((1, 3, 40, 75), UP24, down=4, padding=(11, 11, 10, 12)),
    "generic": Call((1, 3, 15, 17), RADIAL12, up=2, down=3, padding=(5, 5, -2, 9)),
}


@pytest.fixture(scope="module")
def library() -> Emulator:
    return emulated_ops("simt")


@pytest.fixture
def emulator(library: Emulator) -> Iterator[Emulator]:
    """The check build, in force during the test, which must leave no diagnostic."""
    library.configure()
    library.clear()
    with ganops.backend("simt"):
        yield library
    assert library.diagnostics() == []
    library.configure()


def reference(call: Call, x: Tensor) -> Tensor:
    with ganops.backend("reference"):
        return call(x.double())


def assert_agrees(y: Tensor, expected: Tensor) -> None:
    assert y.shape == expected.shape
    assert relative_error(y.detach(), expected.detach()) <= TOLERANCE[y.dtype]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_values_and_gradients(
    path: str, dtype: torch.dtype, memory_format: torch.memory_format, emulator: Emulator
) -> None:
    call = PATHS[path]
    x = call.x(dtype, memory_format).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, expected = call(x), reference(call, exact)
    assert_agrees(y, expected)
    assert ("generic" if dtype == torch.float64 else path) in emulator.launches()[0].kernel
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (dx,) = torch.autograd.grad(y, x, dy.contiguous(memory_format=memory_format))
    with ganops.backend("reference"):
        (expected_dx,) = torch.autograd.grad(expected, exact, dy.double())
    assert_agrees(dx, expected_dx)


@pytest.mark.parametrize("os_threads", [1, 2])
@pytest.mark.parametrize(("order", "seed"), SCHEDULES)
@pytest.mark.parametrize("path", PATHS)
def test_any_schedule(path: str, order: str, seed: int, os_threads: int, emulator: Emulator) -> None:
    emulator.configure(order, seed, os_threads)
    call = PATHS[path]
    x = call.x(torch.float16)
    assert_agrees(call(x), reference(call, x))


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Call, torch.dtype, torch.memory_format]:
    f, up, down = draw(
        st.sampled_from([(c.f, c.up, c.down) for c in PATHS.values()] + [(BLUR, 1, 1), (UP12[:4], 2, 1), (UP12, 3, 2)])
    )
    taps = f.shape[-1]
    n, c = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 33, 40]))
    h, w = (draw(st.integers(1, 40)) for _ in range(2))
    padding = []
    for size in (w, h):
        before = draw(st.integers(-2, taps))
        enough = max(taps - size * up - before, -2)
        padding += [before, draw(st.integers(enough, enough + taps))]
    call = Call((n, c, h, w), f, up, down, tuple(padding), draw(st.booleans()))
    return call, draw(st.sampled_from(DTYPES[:3])), draw(st.sampled_from(FORMATS))


@settings(max_examples=30)
@given(ragged())
def test_ragged_shapes(library: Emulator, drawn: tuple[Call, torch.dtype, torch.memory_format]) -> None:
    call, dtype, memory_format = drawn
    x = call.x(dtype, memory_format)
    library.clear()
    with ganops.backend("simt"):
        assert_agrees(call(x), reference(call, x))
    assert library.diagnostics() == []


@pytest.mark.parametrize("start", [1, 5, 8])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_an_image_may_start_anywhere(start: int, memory_format: torch.memory_format, emulator: Emulator) -> None:
    call = PATHS["Fir<1, 1, 4, false"]
    shape = (2, 40, 9, 11)
    storage = torch.randn(start + 2 * 40 * 9 * 11).half()
    nhwc = memory_format == CHANNELS_LAST
    x = storage[start:].view(2, 9, 11, 40).permute(0, 3, 1, 2) if nhwc else storage[start:].view(shape)
    assert_agrees(call(x), reference(call, x))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_nothing_but_the_support_reaches_an_output(
    path: str, memory_format: torch.memory_format, emulator: Emulator
) -> None:
    """NaNs in the last column and row show in the outputs that a tap of the filter brings them to, and in no others."""
    call = PATHS[path]
    x = torch.zeros(call.shape, dtype=torch.float64)
    x[..., -1], x[..., -1, :] = 1, 1
    reached = reference(call, x) != 0
    poisoned = torch.where(x == 1, float("nan"), 0.0).to(torch.bfloat16).contiguous(memory_format=memory_format)
    assert torch.equal(call(poisoned).isnan(), reached)


def test_small_planes_share_blocks(emulator: Emulator) -> None:
    call = Call((3, 50, 5, 4), SKEWED4, padding=(2, 1, 2, 1))
    x = call.x(torch.float32)
    assert_agrees(call(x), reference(call, x))
    assert emulator.launches()[0].counters["blocks"] < 10


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", ["Fir<1, 1, 4, false", "Fir<1, 2, 12, true"])
def test_long_rows_are_cut(path: str, memory_format: torch.memory_format, emulator: Emulator) -> None:
    call = PATHS[path]
    x = torch.randn(1, 3, 11, 2501, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=memory_format)
    assert_agrees(call(x), reference(call, x))
    (launch,) = emulator.launches()
    assert path in launch.kernel and launch.counters["blocks"] > 1


def test_a_row_of_many_odd_channels_goes_to_the_generic_kernel(emulator: Emulator) -> None:
    call = Call((1, 8191, 2, 2), SKEWED4, padding=(2, 1, 2, 1))
    x = call.x(torch.float32, CHANNELS_LAST)
    assert_agrees(call(x), reference(call, x))
    assert "generic" in emulator.launches()[0].kernel


# What the networks call, with fewer channels: StyleGAN2's blurs about its strided convolutions and resampled skips
# (each is the gradient of another), and the geometric augmentation's wavelet filters.
NETWORK = {
    "blur-257": (Call((1, 4, 257, 257), BLUR, padding=(1, 1, 1, 1)), torch.float16, PLANES),
    "blur-256": (Call((1, 4, 256, 256), BLUR, padding=(2, 2, 2, 2)), torch.float16, PLANES),
    "blur-513": (Call((1, 1, 513, 513), BLUR, padding=(1, 1, 1, 1)), torch.bfloat16, PLANES),
    "blur-257-float": (Call((1, 2, 257, 257), BLUR, padding=(1, 1, 1, 1)), torch.float32, PLANES),
    "blur-129-nhwc": (Call((1, 32, 129, 129), BLUR, padding=(1, 1, 1, 1)), torch.float16, CHANNELS_LAST),
    "blur-128-nhwc": (Call((1, 32, 128, 128), BLUR, padding=(2, 2, 2, 2)), torch.float16, CHANNELS_LAST),
    "down-256": (Call((1, 4, 256, 256), BLUR, down=2, padding=(1, 1, 1, 1)), torch.float16, PLANES),
    "down-128-nhwc": (Call((1, 32, 128, 128), BLUR, down=2, padding=(1, 1, 1, 1)), torch.float16, CHANNELS_LAST),
    "up-128": (Call((1, 3, 128, 128), BLUR, up=2, padding=(2, 1, 2, 1)), torch.float32, PLANES),
    "up12-148": (Call((1, 3, 148, 148), UP12, up=2, padding=(6, 5, 6, 5)), torch.float32, PLANES),
    "down12-266": (Call((1, 3, 266, 266), DOWN12, down=2), torch.float32, PLANES),
    "up24-64": (Call((1, 2, 64, 64), UP24, up=4, padding=(12, 11, 12, 11)), torch.float16, PLANES),
    "down24-256": (Call((1, 2, 256, 256), UP24, down=4, padding=(10, 10, 10, 10)), torch.float16, PLANES),
}
BUDGET = 1.10
BYTES_BUDGET = 1.15
SHARED_BUDGET = (
    1.12  # copies too: where a row ends within a warp, lanes are skipped, and the others count as out of step
)


def shared_ratios_of_the_loops(launch: Launch) -> dict[str, float]:
    """Wavefronts over the ideal of every instruction that filters: all but the copies to and from global memory."""
    return {
        str(a): a.transactions / a.ideal
        for a in launch.accesses
        if a.memory == "shared" and a.location and a.location.file.endswith("upfirdn2d/cuda.cu")
    }


@pytest.mark.parametrize("name", NETWORK)
def test_network_shapes_keep_to_the_budgets(name: str, emulator: Emulator) -> None:
    call, dtype, memory_format = NETWORK[name]
    x = call.x(dtype, memory_format)
    y = call(x)
    (launch,) = emulator.launches()
    assert "tiled" in launch.kernel
    counters = launch.counters
    assert counters["global_sectors"] <= BUDGET * counters["global_sectors_ideal"]
    loops = shared_ratios_of_the_loops(launch)
    assert len(loops) >= 4 and max(loops.values()) <= BUDGET, loops
    assert counters["shared_wavefronts"] <= SHARED_BUDGET * counters["shared_wavefronts_ideal"]
    # Counted once, whatever margins tiles share.
    used = {b.name: b for b in launch.buffers}
    once = used["x"].bytes_read + used["y"].bytes_written
    moved = counters["global_bytes_read"] + counters["global_bytes_written"]
    floor = (x.numel() + y.numel()) * x.element_size()
    assert once <= BYTES_BUDGET * floor
    # 16 bits move in accesses of 16 bytes.
    if dtype.itemsize == 2:
        wide = sum(a.bytes * a.lanes for a in launch.accesses if a.memory == "global" and a.bytes == 16)
        assert wide >= 0.95 * moved
    print(
        f"\n{name}: floor {floor / 1e6:.2f} MB, bytes moved {moved / floor:.2f}, "
        f"sectors {counters['global_sectors'] / counters['global_sectors_ideal']:.3f}, "
        f"wavefronts {counters['shared_wavefronts'] / counters['shared_wavefronts_ideal']:.3f} of the ideal, "
        f"{32 * counters['shared_wavefronts'] / y.numel():.1f} for 32 outputs, "
        f"{launch.shared_bytes / 1024:.0f} KiB of shared memory"
    )


def test_what_float_planes_pay_for_every_other_column(emulator: Emulator) -> None:
    """The one loop over the budget: 32-bit reads, two words apart, of 4x4 filters that downsample."""
    x = Call((1, 2, 128, 128), BLUR).x(torch.float32)
    ganops.upfirdn2d(x, BLUR, down=2, padding=1)
    (launch,) = emulator.launches()
    ratios = sorted(shared_ratios_of_the_loops(launch).values())
    assert ratios[-1] <= 2.0
    assert launch.counters["global_sectors"] <= BUDGET * launch.counters["global_sectors_ideal"]
