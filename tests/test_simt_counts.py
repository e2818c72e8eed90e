"""The emulator counts right: kernels whose traffic can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from simt_build import build
from simt_emulator import Emulator, Footprint, Moved
from simt_kernels import ALL_BUILDS, CHECK_BUILDS, KERNELS, SCHEDULES, assert_clean, call, emulator_of, prepare


@pytest.fixture(scope="module", params=ALL_BUILDS)
def emulator(request: pytest.FixtureRequest) -> Emulator:
    return emulator_of(request.param)


@pytest.fixture(scope="module", params=CHECK_BUILDS)
def checker(request: pytest.FixtureRequest) -> Emulator:
    return emulator_of(request.param)


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
    assert y.footprints == [
        Footprint(block, True, first := block * 256, first + 255, 256, 8) for block in range(blocks)
    ]
    assert [(f.block, f.write, f.bytes, f.sectors) for f in x.footprints] == [
        (block, False, 256, 2 * sectors) for block in range(blocks)
    ]
    assert {(a.buffer, a.moved) for a in launch.accesses} == {("x", warps * 128), ("y", warps * 128)}


def test_sectors_of_a_misaligned_start(checker: Emulator) -> None:
    prepare(checker)
    call(checker, "run_copy_strided", aligned(65)[1:], aligned(64), 1, 1)
    (launch,) = checker.launches()
    assert launch.counters["global_sectors"] == 2 * (5 + 4)  # 128 bytes that start within a sector touch five
    x, y = launch.buffers
    assert (x.start, y.start) == (4, 0)
    assert (x.footprints[0].sectors, y.footprints[0].sectors) == (9, 8)  # the block's two warps share one of x


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


def test_accesses_of_every_size_are_seen(checker: Emulator) -> None:
    prepare(checker)
    call(checker, "run_read_every_size", aligned(32 * 4), aligned(32))
    assert_clean(checker, 1)
    (launch,) = checker.launches()
    bytes_read: dict[int, int] = {}
    for access in launch.accesses:
        if not access.write:
            bytes_read[access.bytes] = bytes_read.get(access.bytes, 0) + access.lanes * access.bytes
    # The pair of floats may be read as one piece of 8 bytes or two of 4; the three floats are read one by one.
    pairs = bytes_read.pop(8, 0)
    assert bytes_read == {1: 32, 2: 64, 4: 32 * 12 + 32 * 8 - pairs, 16: 32 * 16}


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
    assert read.moved == 4 * read.lanes
    # In turn i the even lanes from i on read, and eight lanes share a sector.
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
        # Every block has its part of a and b, which it reads once, and of c.
        for buffer, mine in zip(launch.buffers, (64 * k * 2, k * 64 * 2, 64 * 64 * 4), strict=True):
            assert [f.bytes for f in buffer.footprints] == [mine] * blocks
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
        seen.append((launch.counters, [str(access) for access in launch.accesses], launch.buffers))
    assert seen[0] == seen[1] == seen[2]


# Lines of the cache, blocks at a time, and how often each line of x is read by 6 blocks, of which each reads all 16.
@pytest.mark.parametrize(
    ("lines", "resident", "times"),
    [
        (17, 1, 1),  # x stays
        (15, 1, 6),  # each line is needed again just after it left
        (15, 2, 3),  # two blocks in step share what either reads
        (2, 6, 1),
    ],
)
@pytest.mark.parametrize("os_threads", [1, 3])
def test_modelled_reads(checker: Emulator, lines: int, resident: int, times: int, os_threads: int) -> None:
    blocks, pieces = 6, 16
    prepare(checker, os_threads=os_threads)
    with checker.keeping_requests():
        call(checker, "run_sum_all", aligned(pieces * 32), aligned(blocks * 32), blocks, pieces)
    assert_clean(checker, 1)
    x, y = checker.device_memory(0, lines * 128, resident)
    assert (x, y) == (Moved(times * pieces * 128, 0), Moved(0, blocks * 128))


# A sector that is written in part, and leaves, is read for the rest of it, and written once more when that comes.
@pytest.mark.parametrize(("lines", "resident", "times"), [(8, 1, 1), (7, 1, 2), (2, 1, 2), (7, 8, 2)])
def test_modelled_writes(checker: Emulator, lines: int, resident: int, times: int) -> None:
    blocks = 8
    prepare(checker)
    with checker.keeping_requests():
        call(checker, "run_write_in_halves", aligned(blocks * 32), blocks)
    assert_clean(checker, 1)
    size = blocks * 128
    assert checker.device_memory(0, lines * 128, resident) == [Moved(0 if times == 1 else 2 * size, times * size)]


def test_a_sector_is_moved_whole_and_requests_of_one_instruction_are_shared(checker: Emulator) -> None:
    prepare(checker)
    with checker.keeping_requests():
        call(checker, "run_copy_strided", aligned(63 * 16 + 1), aligned(64), 1, 16)
    x, y = checker.device_memory(0, 1 << 20, 1)
    assert (x, y) == (Moved(64 * 32, 0), Moved(0, 64 * 4))


def test_no_requests_are_kept_unless_asked_for(checker: Emulator) -> None:
    prepare(checker)
    call(checker, "run_copy_vectors", aligned(256), aligned(256), 1)
    assert checker.device_memory(0, 1 << 20, 1) == []


def test_flops_are_counted() -> None:
    emulator = Emulator(build([KERNELS / "counts.cu"], check=False, count_flops=True))
    blocks, taps = 3, 12
    x, f = torch.randn(blocks * 64 + taps - 1), torch.randn(taps)
    y = torch.empty(blocks * 64)
    assert call(emulator, "run_filter", x, f, y, blocks, taps) == 0
    (launch,) = emulator.launches()
    assert launch.counters["flops"] == blocks * 64 * taps * 2
    torch.testing.assert_close(y, torch.nn.functional.conv1d(x[None, None], f[None, None])[0, 0], rtol=1e-5, atol=1e-5)
