"""The emulator computes what a GPU would, in any order, and does not accuse kernels without bugs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from simt_build import CSRC, ROOT, build
from simt_emulator import Emulator, without_parameters
from simt_kernels import ALL_BUILDS, SCHEDULES, SOURCES, assert_clean, call, emulator_of, prepare


@pytest.fixture(scope="module", params=ALL_BUILDS)
def emulator(request: pytest.FixtureRequest) -> Emulator:
    return emulator_of(request.param)


@pytest.mark.parametrize("os_threads", [1, 2, 3])
@pytest.mark.parametrize(("order", "seed"), [*SCHEDULES, ("random", 2)])
def test_clean_kernels_run_right_and_are_not_accused(
    emulator: Emulator, order: str, seed: int, os_threads: int
) -> None:
    prepare(emulator, order, seed, os_threads)
    torch.manual_seed(0)
    m, n, k = 128, 192, 96
    for name, dtype in (("float", torch.float32), ("half", torch.float16), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        c = torch.full((m, n), float("nan"))
        call(emulator, f"run_gemm_{name}", a, b, c, m, n, k)
        # Each of k additions and, in float32, products rounds by at most 2^-24 of its size.
        bound = 2 * k * 2.0**-24 * (a.double().abs() @ b.double().abs())
        assert bool(((c.double() - a.double() @ b.double()).abs() <= bound).all())

    x = torch.randn(24, 300).half()
    norms, total = torch.full((24,), float("nan")), torch.zeros(1)
    call(emulator, "run_row_norm", x, norms, total, 24, 300)
    expected = x.double().square().sum(1)
    torch.testing.assert_close(norms.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(total[0].double(), expected.sum(), rtol=1e-5, atol=0)

    tiles = torch.randn(12, 32, 32)
    turned = torch.full_like(tiles, float("nan"))
    call(emulator, "run_transpose", tiles, turned, 3)
    assert torch.equal(turned, tiles.transpose(1, 2))
    assert_clean(emulator, 5)


def test_orders_differ_and_repeat(emulator: Emulator) -> None:
    def order_of_threads(order: str, seed: int) -> list[int]:
        prepare(emulator, order, seed)
        turns = torch.full((4 * 64,), -1, dtype=torch.int32)
        next_turn = torch.zeros(1, dtype=torch.int32)
        assert call(emulator, "run_take_turns", next_turn, turns, 4) == 0
        assert_clean(emulator, 1)
        return turns.tolist()

    forward, backward = list(range(256)), list(reversed(range(256)))
    assert order_of_threads("forward", 0) == forward
    assert order_of_threads("reverse", 0) == backward
    once = order_of_threads("random", 7)
    assert sorted(once) == forward
    assert once not in (forward, backward)
    assert order_of_threads("random", 7) == once
    assert order_of_threads("random", 8) != once


# The next tables are typed in from NVIDIA's PTX ISA manual, version 9.2, and know nothing of our kernels.
#
# Section 9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with floating point type": groupID = laneid >> 2,
# threadID_in_group = laneid % 4, and the row and column of element i as below.


def element_of_a(lane_id: int, i: int) -> tuple[int, int]:
    """Figure 79, "MMA .m16n8k16 fragment layout for matrix A with .f16 / .bf16 type"."""
    group, in_group = lane_id >> 2, lane_id % 4
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    column = in_group * 2 + (i & 1) if i < 4 else in_group * 2 + (i & 1) + 8
    return row, column


def element_of_b(lane_id: int, i: int) -> tuple[int, int]:
    """Figure 81, "MMA .m16n8k16 fragment layout for matrix B with .f16 / .bf16 type"."""
    group, in_group = lane_id >> 2, lane_id % 4
    return (in_group * 2 + (i & 1) if i < 2 else in_group * 2 + (i & 1) + 8), group


def element_of_c(lane_id: int, i: int) -> tuple[int, int]:
    """Figure 83, "MMA .m16n8k16 fragment layout for accumulator matrix C/D"."""
    group, in_group = lane_id >> 2, lane_id % 4
    return (group if i < 2 else group + 8), in_group * 2 + (i & 1)


# Section 9.7.14.5.15, Figure 104, "ldmatrix fragment layout for one 8x8 Matrix with 16-bit elements": the thread that
# holds each element, eight to a row.
LDMATRIX_THREADS = [
    [0, 0, 1, 1, 2, 2, 3, 3],
    [4, 4, 5, 5, 6, 6, 7, 7],
    [8, 8, 9, 9, 10, 10, 11, 11],
    [12, 12, 13, 13, 14, 14, 15, 15],
    [16, 16, 17, 17, 18, 18, 19, 19],
    [20, 20, 21, 21, 22, 22, 23, 23],
    [24, 24, 25, 25, 26, 26, 27, 27],
    [28, 28, 29, 29, 30, 30, 31, 31],
]


def test_fragments_hold_every_element_once() -> None:
    for element, count, shape in ((element_of_a, 8, (16, 16)), (element_of_b, 4, (16, 8)), (element_of_c, 4, (16, 8))):
        held = sorted(element(lane_id, i) for lane_id in range(32) for i in range(count))
        assert held == [(row, column) for row in range(shape[0]) for column in range(shape[1])]


@pytest.mark.parametrize("shuffles", [False, True])
@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
def test_mma_lanes(emulator: Emulator, name: str, dtype: torch.dtype, shuffles: bool) -> None:
    """The instruction, and the substitute for it on GPUs that lack it."""
    prepare(emulator)
    torch.manual_seed(0)
    # Small integers: every product and sum is exact, so one element out of place shows.
    a, b = torch.randint(-8, 9, (16, 16)).float(), torch.randint(-8, 9, (16, 8)).float()
    c = torch.randint(-8, 9, (16, 8)).float()

    def fragments(matrix: torch.Tensor, element: Callable[[int, int], tuple[int, int]], count: int) -> torch.Tensor:
        return torch.tensor([float(matrix[element(lane_id, i)]) for lane_id in range(32) for i in range(count)])

    d = torch.full((128,), float("nan"))
    left, right = fragments(a, element_of_a, 8).to(dtype), fragments(b, element_of_b, 4).to(dtype)
    call(emulator, f"run_mma_{name}", int(shuffles), left, right, fragments(c, element_of_c, 4), d)
    assert torch.equal(d, fragments(a @ b + c, element_of_c, 4))
    assert_clean(emulator, 1)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("matrices", [1, 2, 4])
def test_ldmatrix_lanes(emulator: Emulator, matrices: int, transpose: bool) -> None:
    prepare(emulator)
    values = torch.arange(4 * 8 * 8, dtype=torch.int16).reshape(4, 8, 8)
    fragments = torch.full((32, 4, 2), -1, dtype=torch.int16)
    call(emulator, "run_ldmatrix", matrices, int(transpose), values, fragments)
    expected = torch.full_like(fragments, -1)
    for m in range(matrices):
        matrix = values[m].t() if transpose else values[m]
        for row in range(8):
            for column in range(8):
                expected[LDMATRIX_THREADS[row][column], m, column % 2] = matrix[row, column]
    assert torch.equal(fragments, expected)
    assert_clean(emulator, 1)


def test_shuffles_and_votes(emulator: Emulator) -> None:
    """Expected values follow the CUDA C++ programming guide, "Warp Shuffle Functions" and "Warp Vote Functions"."""
    prepare(emulator)
    x = torch.arange(100, 132, dtype=torch.int32)
    y = torch.full((32, 16), -1, dtype=torch.int32)
    call(emulator, "run_shuffle", x, y)
    for i in range(32):
        expected = [
            105,
            100 + (i + 3) % 32,
            100 + i // 8 * 8 + 2,
            100 + (i - 3 if i >= 3 else i),
            100 + (i - 3 if i % 16 >= 3 else i),
            100 + (i + 3 if i + 3 < 32 else i),
            100 + (i + 3 if i % 16 + 3 < 16 else i),
            100 + (i ^ 6),
            100 + i,  # a distance of 6 leaves a group of 4
            sum(1 << lane_id for lane_id in range(0, 32, 3)) - (1 << 32 if 31 % 3 == 0 else 0),
            1,
            0,
            100 + (i ^ 1 if i < 8 else i ^ 2),
            sum(range(100, 132)),
            20,
            1,
        ]
        assert y[i].tolist() == expected
    assert_clean(emulator, 1)


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
def test_16_bit_numbers_are_torchs(emulator: Emulator, name: str, dtype: torch.dtype) -> None:
    prepare(emulator)
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    torch.manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (2**16,)).to(torch.int32)
    # Each 16-bit number, what lies around it, and half-way to the next.
    near = every.view(dtype).float().view(torch.int32)
    for offset in (0, 1, -1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001):
        wide = (near + offset if offset else bits).view(torch.float32)
        widened = torch.empty(2**16)
        narrowed = torch.empty(2**16, dtype=dtype)
        assert call(emulator, f"run_{name}", every, widened, wide, narrowed, 2**16) == 0
        assert torch.equal(widened.nan_to_num(nan=1e30), every.view(dtype).float().nan_to_num(nan=1e30))
        expected = wide.to(dtype)
        assert torch.equal(narrowed.isnan(), expected.isnan())
        same = narrowed.view(torch.int16) == expected.view(torch.int16)
        assert bool((same | expected.isnan()).all())
    assert_clean(emulator, 9)


def test_device_properties_are_as_set(emulator: Emulator) -> None:
    class Properties(ctypes.Structure):
        _fields_ = [("capability", ctypes.c_int), ("multiprocessors", ctypes.c_int), ("shared_bytes", ctypes.c_int64)]

    properties = Properties()
    emulator.set_device(75, 68, 64 * 1024)
    assert emulator.library.run_properties(ctypes.byref(properties)) == 0
    assert (properties.capability, properties.multiprocessors, properties.shared_bytes) == (75, 68, 65536)
    prepare(emulator)
    assert call(emulator, "run_bug", b"wants_too_much_shared_memory", torch.zeros(64), torch.zeros(128)) == 9
    assert "65536" in emulator.diagnostics()[0].message
    emulator.set_device(80, 108, 163 * 1024)


def test_bad_settings_are_refused(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match="order must be one of forward, reverse, random, got 'sideways'"):
        emulator.configure("sideways")
    with pytest.raises(ValueError, match="os_threads must be at least 1, got 0"):
        emulator.configure(os_threads=0)


def test_a_source_that_does_not_compile_says_why(tmp_path: Path) -> None:
    source = ROOT / "build" / "simt" / f"broken-{tmp_path.name}.cu"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text('#include "common/device.h"\n__global__ void kernel(ganops::half_t x) { float y = x; }\n')
    with pytest.raises(RuntimeError, match="cannot convert"):
        build([source], check=False)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("void (anonymous namespace)::row_norm<half_t>(half_t const*, float*)", "row_norm<half_t>"),
        ("ganops::kernel<(ganops::Mode)1>(void (*)(int))", "ganops::kernel<(ganops::Mode)1>"),
        ("works", "works"),
    ],
)
def test_names_of_kernels(function: str, name: str) -> None:
    assert without_parameters(function) == name


NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin:/usr/local/cuda-13.0/bin") or shutil.which("nvcc")


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nvcc_compiles_the_same_kernels(source: Path, architecture: str, tmp_path: Path) -> None:
    command = [str(NVCC), "-std=c++17", f"-arch={architecture}", f"-I{CSRC}", "-Werror", "all-warnings", "-Xcompiler",
               "-Wall,-Wextra,-Werror", "-c", str(source), "-o", str(tmp_path / "kernel.o")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
