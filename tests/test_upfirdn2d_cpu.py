"""What is special to the CPU kernel of upfirdn2d: instruction sets, threads, strips, groups, filters of rank 1."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import ganops

pytestmark = pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason=ganops.backends()["cpu"])

INSTRUCTION_SETS = ["baseline", "x86-64-v3", "x86-64-v4"]
BLUR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
NOT_SEPARABLE = BLUR.outer(BLUR) + torch.eye(4) / 10
FILTERS = {"none": None, "separable": BLUR, "full": NOT_SEPARABLE, "13 taps": torch.arange(1.0, 14) / 91}
FACTORS = [(1, 1), (2, 1), (1, 2), (3, 2), (2, 4)]

# All dtypes and both ways through the kernel, in an interpreter of its own, since the choice is made once.
INTERPRETER = """
import sys
import torch
import ganops

torch.set_num_threads(1)
x, filters = torch.load(sys.argv[1])
results = [
    ganops.upfirdn2d(x.to(dtype), f, up=2, down=[1, 3], padding=[6, 5, -1, 7], gain=1.5)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    for f in filters
]
results.append(ganops.upfirdn2d(x, filters[0], padding=[2, 1, 2, 1]))
torch.save((torch.ops.ganops.cpu_instruction_set(), results), sys.argv[2])
"""


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def assert_same(y: Tensor, expected: Tensor) -> None:
    assert torch.equal(y, expected)


def assert_near(y: Tensor, expected: Tensor, roundings: int = 4) -> None:
    """The largest error, in roundings of y's dtype at the largest value."""
    error = (y.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= roundings * torch.finfo(y.dtype).eps


def reference(x: Tensor, *args: object, **kwargs: object) -> Tensor:
    with ganops.backend("reference"):
        return ganops.upfirdn2d(x.double(), *args, **kwargs)


@pytest.mark.parametrize("wanted", INSTRUCTION_SETS)
def test_instruction_sets_agree(wanted: str, tmp_path) -> None:
    best = torch.ops.ganops.cpu_instruction_set()
    if INSTRUCTION_SETS.index(wanted) > INSTRUCTION_SETS.index(best):
        pytest.skip(f"this machine has {best} at most")
    x, filters = image(2, 3, 19, 41), [BLUR, NOT_SEPARABLE]
    torch.save((x, filters), tmp_path / "in.pt")
    subprocess.run(
        [sys.executable, "-c", INTERPRETER, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")],
        env={**os.environ, "GANOPS_CPU_ISA": wanted},
        check=True,
    )
    used, results = torch.load(tmp_path / "out.pt")
    assert used == wanted
    assert_near(results.pop(), reference(x, BLUR, padding=[2, 1, 2, 1]))
    for i, y in enumerate(results):
        f = filters[i % len(filters)]
        assert_near(y, reference(x.to(y.dtype), f, up=2, down=[1, 3], padding=[6, 5, -1, 7], gain=1.5))


@pytest.mark.parametrize(("up", "down"), FACTORS)
@pytest.mark.parametrize("name", FILTERS)
def test_channels_last_equals_contiguous(name: str, up: int, down: int) -> None:
    """To the bit where the order of all sums is the same: all but a blur of planes, which are summed along y first."""
    f = FILTERS[name]
    is_blur = name == "separable" and (up, down) == (1, 1)
    for channels in (2, 3, 20):
        x = image(2, channels, 9, 14)
        y, other = (ganops.upfirdn2d(z, f, up, down, padding=7) for z in (x, channels_last(x)))
        assert_near(other, y) if is_blur else assert_same(other, y)


@pytest.mark.parametrize("padding", [2, [2, 1, 2, 1], [-1, 4, 5, -2], [40, 30, 1, 20]], ids=str)
@pytest.mark.parametrize("size", [(3, 2), (5, 7), (4, 16), (9, 33), (17, 31), (6, 70)], ids=str)
def test_blur(size: tuple[int, int], padding: object) -> None:
    x = image(2, 3, *size)
    f = torch.tensor([1.0, 2.0, 4.0, 3.0]) / 10
    y = ganops.upfirdn2d(x, f, padding=padding)
    assert_near(y, reference(x, f, padding=padding))
    x[0, 1, 2, 1] = x[1, 2, 0, 0] = float("nan")
    assert torch.equal(ganops.upfirdn2d(x, f, padding=padding).isnan(), reference(x, f, padding=padding).isnan())


@pytest.mark.parametrize("width", [64, 65])
def test_large_results_are_those_of_parts(width: int) -> None:
    """Those of 8 MiB and more are written past the caches; rows of 65 pixels do not start where vectors do."""
    x = image(1, 512, 66, width + 1)
    y = ganops.upfirdn2d(x, BLUR, padding=1)
    assert y.nbytes >= 8 * 2**20
    parts = [ganops.upfirdn2d(part, BLUR, padding=1) for part in x.split(100, dim=1)]
    assert_same(y, torch.cat(parts, dim=1))


@pytest.mark.parametrize(("up", "down"), FACTORS)
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(1, 1, 5, 40000), (1, 3000, 5, 9), (1, 70000, 2, 3)], ids=str)
def test_rows_that_are_cut_into_strips(shape: tuple[int, ...], name: str, up: int, down: int) -> None:
    x = channels_last(image(*shape))
    f = FILTERS[name]
    assert_near(ganops.upfirdn2d(x, f, up, down, padding=6), reference(x, f, up, down, padding=6))


@pytest.mark.parametrize(("up", "down"), FACTORS)
@pytest.mark.parametrize("name", FILTERS)
def test_narrow_planes_are_filtered_side_by_side(name: str, up: int, down: int) -> None:
    """Each plane as if alone, to the bit, and NaN stays in its plane; 101 planes leave an incomplete group."""
    x, f = image(1, 101, 3, 4), FILTERS[name]
    x[0, 50] = float("nan")
    y = ganops.upfirdn2d(x, f, up, down, padding=6)
    alone = [ganops.upfirdn2d(x[:, i : i + 1], f, up, down, padding=6) for i in range(101)]
    assert torch.equal(y.nan_to_num(nan=1e9), torch.cat(alone, dim=1).nan_to_num(nan=1e9))
    assert y[:, 50].isnan().any()
    assert not y[:, :50].isnan().any()
    assert not y[:, 51:].isnan().any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", FILTERS)
def test_threads_share_rows(name: str, memory_format: torch.memory_format) -> None:
    """Bands of rows of one plane go to several threads; the result does not show it."""
    x = image(1, 2, 211, 260).contiguous(memory_format=memory_format)
    f = FILTERS[name]
    expected = ganops.upfirdn2d(x, f, up=2, down=[1, 3], padding=5)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(ganops.upfirdn2d(x, f, up=2, down=[1, 3], padding=5), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("flip_filter", [False, True])
def test_rank_1_filter_runs_as_separable(flip_filter: bool) -> None:
    """setup_filter's outer products take the separable way: within roundings, not to the bit, of the exact sum."""
    x = image(1, 2, 20, 23)
    column, row = torch.tensor([0.0, -1.0, 2.0, 0.5, 0.25]), torch.tensor([0.5, 3.0, 0.0, -1.0])
    f = column.outer(row)
    y = ganops.upfirdn2d(x, f, up=[2, 1], down=[1, 2], padding=3, flip_filter=flip_filter, gain=-2)
    assert_near(y, reference(x, f, up=[2, 1], down=[1, 2], padding=3, flip_filter=flip_filter, gain=-2))
    f[0, 0] = 1e-4  # rank 2, and no longer to be approximated
    full = ganops.upfirdn2d(x, f, up=[2, 1], down=[1, 2], padding=3, flip_filter=flip_filter, gain=-2)
    assert_near(full, reference(x, f, up=[2, 1], down=[1, 2], padding=3, flip_filter=flip_filter, gain=-2))
    assert not torch.equal(y, full)


def test_double_images_see_every_digit_of_a_filter() -> None:
    """A filter of rank 1 to float's precision alone is not factorised for them."""
    x = image(1, 1, 12, 12).double()
    f = torch.rand(6, generator=torch.Generator().manual_seed(1))
    f = f.outer(f)
    assert_near(ganops.upfirdn2d(x, f, padding=3), reference(x, f, padding=3), roundings=8)


@pytest.mark.parametrize("size", [0, 1e-30, 1e30])
def test_extreme_filters(size: float) -> None:
    x, f = image(1, 2, 9, 9), NOT_SEPARABLE * size
    y = ganops.upfirdn2d(x, f, padding=2)
    assert torch.equal(y, y * 0) if size == 0 else y.isfinite().all()
    torch.testing.assert_close(y.double(), reference(x, f, padding=2), rtol=1e-5, atol=size * 1e-6)
