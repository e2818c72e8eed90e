"""Seeded bugs: one small change to a kernel of ours at a time, which the emulator or the reference must notice.

python tests/mutations.py          builds and runs them all, prints what caught each, fails if one was not caught
python tests/mutations.py TEXT     those whose name contains the text
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from simt_build import CSRC, JOBS, ROOT

CACHE = ROOT / "build" / "mutations"
TIMEOUT = 120  # seconds of processor time for one child's cases
NOT_CAUGHT = "not caught"


@dataclass(frozen=True)
class Mutation:
    """Replaces the ``number``-th occurrence of ``old`` in a file of csrc by ``new``."""

    name: str
    file: str
    old: str
    new: str
    number: int = 1

    @property
    def op(self) -> str:
        return self.file.split("/")[0]

    def mutated(self) -> str:
        """The changed text of the file.

        Raises:
            ValueError: the file does not hold the text, or not so often.
        """
        parts = (CSRC / self.file).read_text().split(self.old)
        if len(parts) <= self.number:
            raise ValueError(f"{self.name}: {self.file} holds {self.old!r} {len(parts) - 1} times, not {self.number}")
        return self.old.join(parts[: self.number]) + self.new + self.old.join(parts[self.number :])


BIAS, EPILOGUE = "bias_act/cuda.cu", "modulated_conv2d/cuda.cu"
FIR, TILES = "upfirdn2d/cuda.cu", "upfirdn2d/cuda.h"
MARCH, PLAN, FETCH, TENSOR, DIRECT = (
    f"filtered_lrelu/{name}.h" for name in ("march", "march_plan", "march_fetch", "march_tensor", "direct")
)
CONV, CONV_TILE, CONV_ORDER, CONV_LOAD, CONV_PRODUCT = (
    f"scaled_conv2d/{name}" for name in ("cuda.cu", "tile.h", "order.h", "load.h", "product.h")
)
SYNC = "__syncthreads();"

MUTATIONS = [
    Mutation("vector over the end", BIAS, "+ first, value, left)", "+ first, value, left + 1)"),
    Mutation("skip the tail", BIAS, "+ first, value, left)", "+ first, value, left - 1)"),
    Mutation("bias of the next channel", BIAS, "first / p.inner % p.channels", "(first / p.inner + 1) % p.channels"),
    Mutation("channels never wrap", BIAS, "if (++channel == p.channels) channel = 0;", "++channel;"),
    Mutation("blocks overlap", BIAS, "(blockIdx.x) * kThreads +", "(blockIdx.x) * (kThreads - 32) +"),
    Mutation("alignment of y forgotten", BIAS, "is_aligned(p.x, 16) && ", ""),
    Mutation("last block left out", BIAS, "(blocks), dim3(kThreads)", "(blocks - (blocks > 1)), dim3(kThreads)"),
    Mutation("noise of the wrong pixel", EPILOGUE, "pixel = p.channels_last ? outer : inner", "pixel = inner"),
    Mutation("one noise read as many", EPILOGUE, "n * p.noise_stride + pixel", "n * p.pixels + pixel"),
    Mutation("scale's stride swapped", EPILOGUE, "n * p.channels + channel", "channel * p.batch + n"),
    Mutation("next sample missed", EPILOGUE, "outer = 0, n++;", "outer = 0;"),
    Mutation("no barrier after the copy", FIR, SYNC, "", 1),
    Mutation("no barrier between the passes", FIR, SYNC, "", 2),
    Mutation("no barrier before the store", FIR, SYNC, "", 3),
    Mutation("no wait for the copy", FIR, "cp_async_wait<0>();", ""),
    Mutation("store over a row's end", TILES, "first + N <= box.length)", "first < box.length)"),
    Mutation("store one element over a row's end", TILES, "first + N <= box.length)", "first + N <= box.length + 1)"),
    Mutation("ends of rows left out", TILES, "i < box.rows * 2 * N", "i < box.rows * N"),
    Mutation("copy over the tensor's end", TILES, "from + N <= end", "from < end"),
    Mutation("copy before the tensor's start", TILES, "from >= begin && from + N", "from + N"),
    Mutation("pitch of another array", FIR, "% F::down) * t.pitch_middle", "% F::down) * t.pitch_in"),
    Mutation("last row of a tile skipped", FIR, "slot < tile.rows_out * tile.images", "slot + 1 < tile.rows_out"),
    Mutation("zeros not put in at the side", FIR, "!checked || inside[i] ? widen", "true ? widen"),
    Mutation("rows beyond the image", FIR, "y + F::window <= rows)", "y + 1 <= rows)"),
    Mutation("phase off by one", FIR, "first_tap = first * F::up - start", "first_tap = first * F::up - start - 1"),
    Mutation("generic: no guard at the end", FIR, "if (image >= outer) return;", ""),
    Mutation("generic: flip swapped", FIR, "tap_x = p.flip_filter ? tap", "tap_x = !p.flip_filter ? tap"),
    Mutation("march: no barrier after planning", MARCH, SYNC, "", 1),
    Mutation("march: no barrier in the loop", MARCH, SYNC, "", 3),
    Mutation("march: no barrier after widening", MARCH, SYNC, "", 4),
    Mutation("march: no barrier before narrowing", MARCH, SYNC, "", 5),
    Mutation("march: no barrier before the halves meet", MARCH, SYNC, "", 6),
    Mutation("march: no barrier before the last store", MARCH, SYNC, "", 7),
    Mutation("march: no wait for the first rows", MARCH, "cp_async_wait<0>();", "", 1),
    Mutation("march: no wait for the next rows", MARCH, "cp_async_wait<0>();", "", 2),
    Mutation("march: codes shifted by one bit", MARCH, "word >> kCodeBits * row & 3", "word >> row & 3"),
    Mutation("march: one half counted twice", MARCH, "even[i] + odd[i]", "even[i] + even[i]"),
    Mutation("march: taps by another diagonal", TENSOR, "- 2 * (lane / 4);", "- 2 * (lane / 4) + 1;"),
    Mutation("march: ring of rows too short", TENSOR, "row >> 1 & (kRing - 1)", "row >> 1 & (kRing / 2 - 1)"),
    Mutation("march: both tiles alike", TENSOR, "first_tile + (lane >> 3 & 1)", "first_tile"),
    Mutation("march: rows of the next block", PLAN, "row >= delay && row < delay + rows", "row >= delay"),
    Mutation("march: input shifted by one", PLAN, "p.pad_x - 1) / M::kUp + 1", "p.pad_x - 1) / M::kUp"),
    Mutation("march: phase along x forgotten", MARCH, "M::kColumns - grid.lead_x", "M::kColumns"),
    Mutation("march: phase along y forgotten", PLAN, "return lead_y % 2 == 0;", "return false;"),
    Mutation("march: copy over the tensor's end", FETCH, "from >= 0 && from + kLength <= grid.elements", "from >= 0"),
    Mutation("march: copy over the codes' end", FETCH, "from >= 0 && from + kBytes <= grid.code_bytes", "from >= 0"),
    Mutation("march: codes at another byte", FETCH, "misalignment(p, row_start(grid, b, row)) * 8 + ", ""),
    Mutation("march: lanes exchange with the wrong ones", MARCH, "(kAllLanes, codes, 2)", "(kAllLanes, codes, 4)"),
    Mutation("march: outputs beyond the row", MARCH, "b.columns, grid.store", "M::kOutColumns, grid.store"),
    Mutation("direct: no barrier before a piece", DIRECT, SYNC, "", 1),
    Mutation("direct: no barrier after a piece", DIRECT, SYNC, "", 2),
    Mutation("direct: last codes left out", DIRECT, "codes_end_y = last_y ? p.up_height :", "codes_end_y ="),
    Mutation("conv: no barrier while packing", CONV, SYNC, "", 1),
    Mutation("conv: no barrier after the tables", CONV, SYNC, "", 2),
    Mutation("conv: no barrier in the loop", CONV, SYNC, "", 3),
    Mutation("conv: no barrier after the loop", CONV, SYNC, "", 4),
    Mutation("conv: no barrier before results leave", CONV, SYNC, "", 5),
    Mutation("conv: weights used a turn early", CONV, "cp_async_wait<kStages - 2>", "cp_async_wait<kStages - 1>"),
    Mutation("conv: next channels over those in use", CONV, "Tile::kChannels, next_x);", "Tile::kChannels, x);", 1),
    Mutation("conv: no zeros at the side", CONV, "input_x >= 0 && input_x < p.width.in &&", ""),
    Mutation("conv: results outside the image", CONV, "if (at >= 0 && out < p.out_channels)", "if (at >= 0)"),
    Mutation("conv: phases begin with the first tap", CONV_TILE, "(up - start % up) % up", "0 * start"),
    Mutation("conv: last group as long as others", CONV_ORDER, "tiles - first < kGroup ? tiles - first : ", ""),
    Mutation("conv: phases for channels", CONV_ORDER, "other % outs", "other % phases"),
    Mutation("conv: last images left out", CONV_TILE, "ceil_div(p.samples, images)", "p.samples / images"),
    Mutation("conv: channels beyond the last", CONV_LOAD, "if (e < channels) held", "held"),
    Mutation("conv: rows beyond the last channel", CONV_LOAD, " || channel + c >= p.in_channels", ""),
    Mutation("conv: a row's cells end late", CONV_LOAD, "first_x + pixel >= t.cells_x", "first_x + pixel > t.cells_x"),
    Mutation("conv: a row's cells begin early", CONV_LOAD, "first_x + pixel < 0", "first_x + pixel < -1"),
    Mutation("conv: pixels not turned", CONV_LOAD, "other = word ^ kTurn / 2", "other = word"),
    Mutation("conv: vectors before the image", CONV, "&& input_x >= 0 &&\n", "&&"),
    Mutation("conv: a vector left out", CONV, "x + Tile::kVector > 0", "x > 0"),
    Mutation("conv: weights beyond the last", CONV_LOAD, "out < p.out_channels && channel", "channel"),
    Mutation("conv: scales of the first image", CONV_LOAD, "shared.image[slot.row] * t.scales +", ""),
    Mutation("conv: depths swapped", CONV_PRODUCT, "lane / 8 % 2 * 8", "(1 - lane / 8 % 2) * 8"),
    Mutation("conv: channel of the next lane", CONV_PRODUCT, "lane % 4 * 2 + k % 2", "lane % 4 * 2 + (1 - k % 2)"),
    Mutation("direct: outputs beyond the row", DIRECT, "o_x < p.out_width && o_y", "o_y"),
]  # fmt: skip


def build(mutation: Mutation) -> Path:
    """The library with this mutation, in the check build."""
    from simt_ops import build_ops

    overlay = CACHE / "".join(c if c.isalnum() else "-" for c in mutation.name)
    shutil.rmtree(overlay, ignore_errors=True)
    (overlay / mutation.file).parent.mkdir(parents=True)
    (overlay / mutation.file).write_text(mutation.mutated())
    return build_ops("simt", overlay)


def run_cases(library: Path, op: str) -> str:
    """What catches a bug in the library's kernels of an operator: a diagnostic or a wrong result; else NOT_CAUGHT."""
    import torch
    from simt_ops import load_ops

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # what is never written is NaN
    emulator = load_ops("simt", library)
    for seed, order in enumerate(("forward", "reverse", "random")):
        for error in errors_of_cases(op):
            if found := emulator.diagnostics():
                return f"diagnostic: {found[0]}"
            if error:
                return f"result: {error}"
            emulator.clear()
            emulator.configure(order, seed)
    return NOT_CAUGHT


def errors_of_cases(op: str) -> Iterator[str]:
    """Runs small cases on the emulator, forward and backward; for each, what differs from the reference, or nothing."""
    import torch
    from cases import CASES, SCALED_CONV2D, TOLERANCE, Case, relative_error

    import ganops
    from ganops import _cost_model

    def results(case: Case, tensors: dict[str, torch.Tensor], backend: str) -> list[torch.Tensor]:
        is_modulated = case.op == "modulated_conv2d"
        by_kernel = _cost_model.forced(op == "scaled_conv2d")
        with ganops.backend(backend), by_kernel, torch.set_grad_enabled(not is_modulated):
            y = case.run(tensors)
            wanted = [tensors["x"]] if y.requires_grad else []
            return [y.detach(), *(torch.autograd.grad(y.square().sum(), wanted) if wanted else [])]

    cases = [case for case in CASES if case.op == op and "swish" not in case.name]
    if op == "scaled_conv2d":
        cases = SCALED_CONV2D[:5] + SCALED_CONV2D[7:10] + SCALED_CONV2D[13:]
    for case in cases:
        for dtype, misaligned in ((torch.float16, False), (torch.float16, True), (torch.float32, False)):
            by_rows = case.name == "3x3-whole-sectors"
            planar = len(case.shapes["x"]) != 4 or misaligned or dtype.itemsize > 2 or by_rows
            tensors = case.tensors(dtype, memory_format=torch.contiguous_format if planar else torch.channels_last)
            if misaligned:
                x = tensors["x"].detach()
                tensors["x"] = torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape).requires_grad_()
            exact = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
            expected = results(case, exact, "reference")
            try:
                actual = results(case, tensors, "simt")
            except RuntimeError as error:
                yield f"{case}: {error}"
                continue
            found = [relative_error(a, e) for a, e in zip(actual, expected, strict=True)]
            wrong = [error for error in found if not error <= 10 * TOLERANCE[dtype]]  # NaN is wrong
            yield f"{case} in {dtype}: error {wrong[0]:.1e}" if wrong else ""


def what_catches(library: Path, op: str) -> str:
    """The same in a process of its own, which a bug may bring down."""
    command = [sys.executable, __file__, "--library", str(library), "--op", op]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == -signal.SIGXCPU:
        return f"{NOT_CAUGHT}: it ran for {TIMEOUT} s"
    return done.stdout.strip() or f"{NOT_CAUGHT}: the process ended with {done.returncode}: {done.stderr[-500:]}"


def outcomes(mutations: Sequence[Mutation]) -> Iterator[tuple[Mutation, str]]:
    """Builds and runs these, two at a time."""
    with ThreadPoolExecutor(JOBS) as pool:
        yield from zip(mutations, pool.map(lambda m: what_catches(build(m), m.op), mutations), strict=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="", help="run the mutations whose name contains it")
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--op", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.library:
        resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT, TIMEOUT + 1))
        print(run_cases(args.library, args.op))
        return 0
    missed = 0
    chosen = [mutation for mutation in MUTATIONS if args.text in mutation.name]
    for mutation, caught_by in outcomes(chosen):
        missed += caught_by.startswith(NOT_CAUGHT)
        print(f"{mutation.op:18}{mutation.name:44}{caught_by}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutations caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
