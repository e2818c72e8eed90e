"""Seeded bugs in the CUDA kernels are caught: some of them in every run, all of them among the slow tests."""

import zlib

import pytest
from mutations import MUTATIONS, NOT_CAUGHT, Mutation, build, what_catches
from simt_build import CSRC
from simt_ops import build_ops

# A run takes one mutation in so many. Which ones changes with the kernels.
SHARE = 10
TURN = zlib.crc32(b"".join(path.read_bytes() for path in sorted(CSRC.glob("*/*.[hc]*")))) % SHARE


def test_there_are_twenty_mutations_of_every_kernel_source() -> None:
    assert len(MUTATIONS) >= 20
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert {mutation.op for mutation in MUTATIONS} == {path.parent.name for path in CSRC.glob("*/cuda*.cu")}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_still_matches(mutation: Mutation) -> None:
    assert mutation.mutated() != (CSRC / mutation.file).read_text()


def test_a_mutation_that_matches_no_more_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"gone: bias_act/cuda\.cu holds 'no such text' 0 times, not 1"):
        Mutation("gone", "bias_act/cuda.cu", "no such text", "").mutated()


@pytest.mark.parametrize("op", sorted({mutation.op for mutation in MUTATIONS}))
def test_kernels_without_a_mutation_are_not_accused(op: str) -> None:
    assert what_catches(build_ops("simt"), op) == NOT_CAUGHT


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(mutation, marks=[] if i % SHARE == TURN else [pytest.mark.slow], id=mutation.name)
        for i, mutation in enumerate(MUTATIONS)
    ],
)
def test_mutation_is_caught(mutation: Mutation) -> None:
    assert not what_catches(build(mutation), mutation.op).startswith(NOT_CAUGHT)
