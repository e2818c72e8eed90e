"""The emulator itself: every kind of bug is found and named, kernels without bugs are not accused, and counts are right."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from simt_build import CSRC, ROOT, build
from simt_emulator import Emulator, without_parameters

KERNELS = ROOT / "tests" / "simt"
SOURCES = [KERNELS / f"{name}.cu" for name in ("bugs", "clean", "counts", "lanes", "numbers")]
SCHEDULES = [("forward", 0), ("reverse", 0), ("random", 1)]
BUILDS = {"check": (True, False), "fast": (False, False), "check-ucontext": (True, True), "fast-ucontext": (False, True)}


@pytest.fixture(scope="module", params=BUILDS)
def emulator(request: pytest.FixtureRequest) -> Emulator:
    check, ucontext = BUILDS[request.param]
    return Emulator(build(SOURCES, check=check, ucontext=ucontext))


@pytest.fixture(scope="module", params=["check", "check-ucontext"])
def checker(request: pytest.FixtureRequest) -> Emulator:
    return Emulator(build(SOURCES, check=True, ucontext=BUILDS[request.param][1]))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def call(emulator: Emulator, name: str, *arguments: torch.Tensor | int | bytes) -> int:
    """Runs a launcher of the test kernels and returns the launch's error."""
    converted = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in arguments]
    return getattr(emulator.library, name)(*converted)


def prepare(emulator: Emulator, order: str = "forward", seed: int = 0, os_threads: int = 1) -> None:
    emulator.configure(order, seed, os_threads)
    emulator.clear()


# --- bugs -------------------------------------------------------------------------------------------------------------

FIRST, SECOND = (0, 0, 0), (1, 0, 0)


def lane(x: int) -> tuple[int, int, int]:
    return (x, 0, 0)


# Kernel: the fault at the line marked "here", and the block and thread that meet it first when all run in order. The
# wording of faults is the emulator's.
BUGS = {
    "reads_past_the_end": ("out of bounds", SECOND, lane(31)),
    "writes_before_the_start": ("out of bounds", FIRST, lane(3)),
    "reads_past_the_end_with_a_vector": ("out of bounds", SECOND, lane(28)),
    "reads_memory_not_named": ("out of bounds", FIRST, lane(0)),
    "writes_to_input": ("write to input", FIRST, lane(0)),
    "leaves_shared_array": ("out of bounds", FIRST, lane(31)),
    "leaves_dynamic_shared_memory": ("out of bounds", FIRST, lane(16)),
    "loads_vector_misaligned": ("misaligned", FIRST, lane(5)),
    "stores_shared_vector_misaligned": ("misaligned", FIRST, lane(1)),
    "reads_shared_uninitialised": ("uninitialised", FIRST, lane(0)),
    "reads_output_before_writing": ("uninitialised", FIRST, lane(0)),
    "reads_without_barrier_after_write": ("race", FIRST, lane(32)),
    "writes_without_barrier_after_read": ("race", FIRST, lane(32)),
    "writes_one_place_twice": ("race", FIRST, lane(1)),
    "reads_within_warp_without_syncwarp": ("race", FIRST, lane(1)),
    "takes_a_shuffle_for_a_fence": ("race", FIRST, lane(31)),
    "updates_across_blocks": ("race", SECOND, lane(0)),
    "reads_another_blocks_output": ("race", SECOND, lane(0)),
    "reads_an_atomic_sum_too_early": ("race", SECOND, lane(0)),
    "reads_copy_without_wait": ("missing cp.async wait", FIRST, lane(0)),
    "waits_for_the_wrong_group": ("missing cp.async wait", FIRST, lane(0)),
    "waits_for_a_copy_without_barrier": ("race", FIRST, lane(32)),
    "copies_into_a_tile_in_use": ("race", FIRST, lane(32)),
    "meets_at_two_barriers": ("divergent barrier", FIRST, lane(32)),
    "exits_before_the_barrier": ("divergent barrier", FIRST, lane(0)),
    "exits_before_the_shuffle": ("incomplete collective", FIRST, lane(5)),
    "shuffles_in_a_branch": ("incomplete collective", FIRST, lane(16)),
    "shuffles_from_a_lane_left_out": ("incomplete collective", FIRST, lane(8)),
    "leaves_itself_out_of_the_mask": ("incomplete collective", FIRST, lane(16)),
    "waits_for_each_other": ("deadlock", FIRST, lane(0)),
    "loads_matrix_without_sync": ("race", FIRST, lane(0)),
    "loads_matrix_misaligned": ("misaligned", FIRST, lane(9)),
    "loads_matrix_from_global_memory": ("out of bounds", FIRST, lane(0)),
}

# Faults that no one instruction is to blame for.
WHOLE_LAUNCH = {
    "leaves_output_unwritten": ("unwritten output", "leaves_output_unwritten", "8 of 256 bytes of y", "first at byte 28"),
    "has_too_many_threads": ("bad launch", "works", "block larger"),
    "wants_too_much_shared_memory": ("bad launch", "works", "167936 bytes of shared memory", "166912"),
    "has_no_blocks": ("bad launch", "works", "zero size"),
}

# What a launch ends with, as a CUDA launch would. The other faults let it go on.
ERRORS = {"out of bounds": 700, "misaligned": 716, "incomplete collective": 719, "deadlock": 719, "bad launch": 9}


def body_of(kernel: str) -> tuple[range, int | None]:
    """The lines of a kernel in bugs.cu, and the one marked "here"."""
    lines = (KERNELS / "bugs.cu").read_text().splitlines()
    begin = next(i for i, text in enumerate(lines, 1) if f" {kernel}(const float* x" in text)
    end = next(i for i, text in enumerate(lines, 1) if i >= begin and text.endswith("}") and not text.startswith(" "))
    marked = [i for i in range(begin, end + 1) if lines[i - 1].endswith("// here")]
    return range(begin, end + 1), marked[0] if marked else None


def run_bug(emulator: Emulator, kernel: str) -> int:
    x, y = torch.arange(64, dtype=torch.float32), torch.zeros(128)
    return call(emulator, "run_bug", kernel.encode(), x, y)


def test_every_bug_in_the_source_has_a_test() -> None:
    names = re.findall(r'\{(?:CASE\((\w+)\)|"(\w+)")', (KERNELS / "bugs.cu").read_text())
    assert {a or b for a, b in names} == {*BUGS, *WHOLE_LAUNCH}


@pytest.mark.parametrize("kernel", BUGS)
def test_bug_is_found_and_named(checker: Emulator, kernel: str) -> None:
    fault, block, thread = BUGS[kernel]
    prepare(checker)
    error = run_bug(checker, kernel)
    found = checker.diagnostics()
    line = body_of(kernel)[1]
    here = [d for d in found if d.location and d.location.line == line and d.fault == fault]
    assert here, found
    assert here[0].kernel == kernel
    assert Path(here[0].location.file) == KERNELS / "bugs.cu"
    assert (here[0].block, here[0].thread) == (block, thread)
    # shuffles_from_a_lane_left_out reads a value that is undefined, which stops nothing.
    assert error == (0 if kernel == "shuffles_from_a_lane_left_out" else ERRORS.get(fault, 0))


@pytest.mark.parametrize("os_threads", [1, 2])
@pytest.mark.parametrize(("order", "seed"), SCHEDULES)
@pytest.mark.parametrize("kernel", BUGS)
def test_bug_is_found_in_any_order(checker: Emulator, kernel: str, order: str, seed: int, os_threads: int) -> None:
    prepare(checker, order, seed, os_threads)
    run_bug(checker, kernel)
    found = checker.diagnostics()
    # A race is between two lines: which of the two comes second, and is named, depends on the order. A thread that exits early
    # finds others waiting, or others find it gone; two lines that wait for one another are named one or the other.
    lines = body_of(kernel)[0]
    assert BUGS[kernel][0] in {d.fault for d in found}
    for diagnostic in found:
        assert diagnostic.kernel == kernel
        assert diagnostic.location is not None and diagnostic.location.line in lines
        assert diagnostic.block is not None and diagnostic.thread is not None


@pytest.mark.parametrize("kernel", WHOLE_LAUNCH)
def test_fault_of_a_whole_launch_is_found(checker: Emulator, kernel: str) -> None:
    fault, name, *words = WHOLE_LAUNCH[kernel]
    prepare(checker)
    assert run_bug(checker, kernel) == ERRORS.get(fault, 0)
    (found,) = checker.diagnostics()
    assert (found.fault, found.kernel) == (fault, name)
    for word in words:
        assert word in found.message


def test_diagnostics_say_what_was_touched(checker: Emulator) -> None:
    def message(kernel: str) -> str:
        prepare(checker)
        run_bug(checker, kernel)
        return checker.diagnostics()[0].message

    assert message("writes_before_the_start") == "4-byte write to memory 4 bytes before y of 256 bytes"
    assert message("leaves_shared_array") == "4-byte write to shared tile at byte 128 of 128"
    assert "shared memory at byte 128 of 128" in message("leaves_dynamic_shared_memory")
    assert "block (0,0,0) thread (0,0,0)" in message("updates_across_blocks")
    assert "63 threads are at the barrier" in message("waits_for_each_other")


# --- kernels without bugs ---------------------------------------------------------------------------------------------


def assert_clean(emulator: Emulator, launches: int) -> None:
    records = emulator.launches()
    assert len(records) == launches
    assert [str(d) for record in records for d in record.diagnostics] == []
    assert [record.error for record in records] == [0] * launches


@pytest.mark.parametrize("os_threads", [1, 2, 3])
@pytest.mark.parametrize(("order", "seed"), [*SCHEDULES, ("random", 2)])
def test_clean_kernels_run_right_and_are_not_accused(emulator: Emulator, order: str, seed: int, os_threads: int) -> None:
    prepare(emulator, order, seed, os_threads)
    torch.manual_seed(0)
    m, n, k = 128, 192, 96
    for name, dtype in (("float", torch.float32), ("half", torch.float16), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        c = torch.full((m, n), float("nan"))
        call(emulator, f"run_gemm_{name}", a, b, c, m, n, k)
        expected = a.double() @ b.double()  # of values that are exact in float32, so that only the sum rounds
        torch.testing.assert_close(c.double(), expected, rtol=0, atol=k * 2.0**-24 * float(expected.abs().max()) * 4)

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


# --- order ------------------------------------------------------------------------------------------------------------


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
    assert sorted(once) == forward and once not in (forward, backward)
    assert order_of_threads("random", 7) == once
    assert order_of_threads("random", 8) != once


# --- lanes ------------------------------------------------------------------------------------------------------------

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


# Section 9.7.14.5.15, Figure 104, "ldmatrix fragment layout for one 8x8 Matrix with 16-bit elements": the thread that holds
# each element, eight to a row.
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


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
def test_mma_lanes(emulator: Emulator, name: str, dtype: torch.dtype) -> None:
    prepare(emulator)
    torch.manual_seed(0)
    # Small integers: every product and sum is exact, so one element out of place shows.
    a, b = torch.randint(-8, 9, (16, 16)).float(), torch.randint(-8, 9, (16, 8)).float()
    c = torch.randint(-8, 9, (16, 8)).float()

    def fragments(matrix: torch.Tensor, element: object, count: int) -> torch.Tensor:
        return torch.tensor([float(matrix[element(lane_id, i)]) for lane_id in range(32) for i in range(count)])

    d = torch.full((128,), float("nan"))
    call(emulator, f"run_mma_{name}", fragments(a, element_of_a, 8).to(dtype), fragments(b, element_of_b, 4).to(dtype),
         fragments(c, element_of_c, 4), d)  # fmt: skip
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


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
def test_16_bit_numbers_are_torchs(emulator: Emulator, name: str, dtype: torch.dtype) -> None:
    prepare(emulator)
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    torch.manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (2**16,)).to(torch.int32)
    near = every.view(dtype).float().view(torch.int32)  # each 16-bit number, and what lies around and half-way to the next
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


# --- counts -----------------------------------------------------------------------------------------------------------


def aligned(count: int) -> torch.Tensor:
    """Floats that start at a multiple of 64 bytes, for sectors to be countable."""
    storage = torch.zeros(count + 16)
    skip = -storage.data_ptr() % 64 // 4
    return storage[skip : skip + count]


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (3, 12), (8, 32), (16, 32)])
def test_sectors_of_strided_reads(checker: Emulator, stride: int, sectors: int) -> None:
    prepare(checker)
    blocks = 3
    warps = blocks * 2
    call(checker, "run_copy_strided", aligned((blocks * 64 - 1) * stride + 1), aligned(blocks * 64), blocks, stride)
    assert_clean(checker, 1)
    (launch,) = checker.launches()
    assert launch.kernel == "copy_strided"
    counters = launch.counters
    assert counters["global_bytes_read"] == counters["global_bytes_written"] == warps * 32 * 4
    assert counters["global_sectors"] == warps * (sectors + 4)
    assert counters["global_sectors_ideal"] == warps * (4 + 4)
    assert counters["blocks"] == blocks and counters["barriers"] == counters["shared_wavefronts"] == 0
    x, y = launch.buffers
    assert (x.name, x.bytes_read, x.bytes_written) == ("x", warps * 32 * 4, 0)
    assert (y.name, y.bytes_read, y.bytes_written) == ("y", 0, warps * 32 * 4)


def test_sectors_of_a_misaligned_start(checker: Emulator) -> None:
    prepare(checker)
    call(checker, "run_copy_strided", aligned(65)[1:], aligned(64), 1, 1)
    (launch,) = checker.launches()
    assert launch.counters["global_sectors"] == 2 * (5 + 4)  # 128 bytes that start within a sector touch five


def test_sectors_of_vectors(checker: Emulator) -> None:
    prepare(checker)
    call(checker, "run_copy_vectors", aligned(2 * 64 * 4), aligned(2 * 64 * 4), 2)
    assert_clean(checker, 1)
    (launch,) = checker.launches()
    assert launch.counters["global_sectors"] == launch.counters["global_sectors_ideal"] == 2 * 2 * (16 + 16)
    assert {(a.bytes, a.write, a.executions, a.transactions) for a in launch.accesses} == {
        (16, False, 4, 64),
        (16, True, 4, 64),
    }


# Floats a lane, floats from a lane to the next, wavefronts a warp, and as many as the bytes need.
WAVEFRONTS = [
    (1, 1, 1, 1),
    (1, 2, 2, 1),
    (1, 4, 4, 1),
    (1, 32, 32, 1),
    (1, 33, 1, 1),
    (1, 0, 1, 1),  # one word for all lanes
    (2, 2, 2, 2),
    (2, 4, 4, 2),
    (2, 34, 2, 2),
    (4, 4, 4, 4),
    (4, 8, 8, 4),
    (4, 32, 32, 4),
    (4, 36, 4, 4),
]


@pytest.mark.parametrize(("width", "stride", "wavefronts", "ideal"), WAVEFRONTS)
def test_wavefronts(checker: Emulator, width: int, stride: int, wavefronts: int, ideal: int) -> None:
    prepare(checker)
    call(checker, "run_touch_shared", aligned(32), width, stride)
    (launch,) = checker.launches()
    reads = [a for a in launch.accesses if a.memory == "shared" and not a.write]
    writes = [a for a in launch.accesses if a.memory == "shared" and a.write]
    assert [(a.bytes, a.executions, a.transactions, a.ideal) for a in reads + writes] == [
        (4 * width, 1, wavefronts, ideal)
    ] * 2
    assert launch.counters["shared_wavefronts"] == 2 * wavefronts
    assert launch.shared_bytes == (32 * stride + width) * 4


def test_lanes_come_together_again_after_a_branch_in_a_loop(checker: Emulator) -> None:
    prepare(checker)
    call(checker, "run_diverge", aligned(32 * 32), aligned(32))
    assert_clean(checker, 1)
    (launch,) = checker.launches()
    (read,) = (a for a in launch.accesses if not a.write)
    # In turn i the even lanes from i on read. Eight lanes share a sector; the last even lanes of the four are 6, 14, 22, 30.
    reading = [[lane_id for lane_id in range(0, 32, 2) if lane_id >= turn] for turn in range(31)]
    assert read.executions == 31
    assert read.lanes == sum(map(len, reading)) == 256
    assert read.transactions == sum(len({lane_id // 8 for lane_id in lanes}) for lanes in reading) == 76
    assert read.ideal == sum(-(-len(lanes) // 8) for lanes in reading)


def test_counts_of_a_matrix_product(emulator: Emulator) -> None:
    prepare(emulator)
    m, n, k = 128, 64, 96
    a, b = aligned(m * k // 2), aligned(k * n // 2)
    call(emulator, "run_gemm_half", a, b, aligned(m * n), m, n, k)
    (launch,) = emulator.launches()
    counters, blocks, steps = launch.counters, m // 64 * (n // 64), k // 32
    assert launch.kernel == "gemm_tensor<ganops::half_t>"
    assert (launch.grid, launch.block) == ((n // 64, m // 64, 1), (128, 1, 1))
    assert counters["mma_macs"] == m * n * k
    assert counters["barriers"] == blocks * 2 * steps
    warps, depths = blocks * 4, steps * 2
    assert counters["collectives"] == warps * depths * (2 + 2 + 8)  # ldmatrix of a and of b, and mma
    if emulator.checking:
        assert counters["global_bytes_read"] == blocks * (64 * k + k * 64) * 2
        assert counters["global_bytes_written"] == m * n * 4
        assert counters["global_sectors"] == counters["global_sectors_ideal"]
        # Each fragment of 512 bytes takes four wavefronts; rows of 80 bytes put 8 rows of 16 into 32 distinct banks.
        fragments = [x for x in launch.accesses if x.memory == "shared" and not x.write]
        assert sum(x.transactions for x in fragments) == warps * depths * 4 * 4
        assert [(u.name, u.bytes_read, u.bytes_written) for u in launch.buffers] == [
            ("a", m * k * 2, 0),
            ("b", k * n * 2, 0),
            ("c", 0, m * n * 4),
        ]


def test_counts_of_a_row_norm(emulator: Emulator) -> None:
    prepare(emulator)
    rows, columns = 5, 256
    call(emulator, "run_row_norm", torch.ones(rows, columns).half(), aligned(rows), torch.zeros(1), rows, columns)
    (launch,) = emulator.launches()
    assert launch.counters["atomics"] == rows
    assert launch.counters["barriers"] == rows
    assert launch.counters["collectives"] == rows * (4 * 5 + 5)  # five steps in each of four warps, then in one
    assert launch.shared_bytes == 32 * 4


@pytest.mark.parametrize("os_threads", [2, 5])
def test_counts_do_not_depend_on_order(checker: Emulator, os_threads: int) -> None:
    m, n, k = 128, 128, 64
    a, b, c = aligned(m * k // 2), aligned(k * n // 2), aligned(m * n)
    seen = []
    for order, seed in SCHEDULES:
        prepare(checker, order, seed, os_threads)
        call(checker, "run_gemm_half", a, b, c, m, n, k)
        (launch,) = checker.launches()
        seen.append((launch.counters, [str(access) for access in launch.accesses]))
    assert seen[0] == seen[1] == seen[2]


def test_flops_are_counted() -> None:
    emulator = Emulator(build([KERNELS / "counts.cu"], check=False, count_flops=True))
    blocks, taps = 3, 12
    x, f = torch.randn(blocks * 64 + taps - 1), torch.randn(taps)
    y = torch.empty(blocks * 64)
    assert call(emulator, "run_filter", x, f, y, blocks, taps) == 0
    (launch,) = emulator.launches()
    assert launch.counters["flops"] == blocks * 64 * taps * 2
    torch.testing.assert_close(y, torch.nn.functional.conv1d(x[None, None], f[None, None])[0, 0], rtol=1e-5, atol=1e-5)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_device_properties_are_as_set(emulator: Emulator) -> None:
    class Properties(ctypes.Structure):
        _fields_ = [("capability", ctypes.c_int), ("multiprocessors", ctypes.c_int), ("shared_bytes", ctypes.c_int64)]

    properties = Properties()
    emulator.set_device(75, 68, 64 * 1024)
    assert emulator.library.run_properties(ctypes.byref(properties)) == 0
    assert (properties.capability, properties.multiprocessors, properties.shared_bytes) == (75, 68, 65536)
    prepare(emulator)
    assert run_bug(emulator, "wants_too_much_shared_memory") == 9
    assert "65536" in emulator.diagnostics()[0].message
    emulator.set_device(80, 108, 163 * 1024)


def test_bad_settings_are_refused(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match="order must be one of forward, reverse, random, got 'sideways'"):
        emulator.configure("sideways")
    with pytest.raises(ValueError, match="os_threads must be at least 1, got 0"):
        emulator.configure(os_threads=0)


def test_a_source_that_does_not_compile_says_why(tmp_path: Path) -> None:
    source = ROOT / "build" / "simt" / "broken.cu"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text('#include "common/device.h"\n__global__ void kernel(ganops::half_t x) { float y = x; }\n')
    with pytest.raises(RuntimeError, match="cannot convert"):
        build([source], check=False)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("void (anonymous namespace)::row_norm<ganops::half_t>(ganops::half_t const*, float*)", "row_norm<ganops::half_t>"),
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
