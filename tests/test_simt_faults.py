"""The emulator finds and names a bug of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from simt_emulator import Emulator
from simt_kernels import CHECK_BUILDS, KERNELS, SCHEDULES, call, emulator_of, prepare


@pytest.fixture(scope="module", params=CHECK_BUILDS)
def checker(request: pytest.FixtureRequest) -> Emulator:
    return emulator_of(request.param)


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
    "leaves_output_unwritten": ("unwritten output", "leaves_output_unwritten", "8 of 256 bytes of y", "at byte 28"),
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
    assert here[0].location is not None
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
    # A race is between two lines: which of the two comes second, and is named, depends on the order. So does which of
    # two threads that wait for each other is named.
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
