"""What is special to the CPU kernel of filtered_lrelu: codes, instruction sets, threads, tiles, memory formats."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import ganops
from ganops.reference import filtered_lrelu as reference

pytestmark = pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason=ganops.backends()["cpu"])

INSTRUCTION_SETS = ["baseline", "x86-64-v3", "x86-64-v4"]


def taps(*shape: int) -> Tensor:
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))) - 0.1
    return values / values.sum()


def symmetric(f: Tensor) -> Tensor:
    """f, made to read the same backwards along each axis."""
    for axis in range(f.ndim):
        f = (f + f.flip(axis)) / 2
    return f


# name: up, down, fu, fd. Those up to "any" run in registers, forward or backward; symmetric ones in ways of their own.
FILTERS = {
    "2-2": (2, 2, taps(12), taps(12)),
    "4-2": (4, 2, taps(24), taps(12)),
    "2-2-full": (2, 2, taps(12), taps(12, 12)),
    "4-2-full": (4, 2, taps(24), taps(12, 12)),
    "2-4": (2, 4, taps(12), taps(24)),
    "2-4-full-up": (2, 4, taps(12, 12), taps(24)),
    "2-2-symmetric": (2, 2, taps(12), symmetric(taps(12))),
    "4-2-symmetric": (4, 2, taps(24), symmetric(taps(12))),
    "2-2-full-symmetric": (2, 2, taps(12), symmetric(taps(12, 12))),
    "4-2-full-symmetric": (4, 2, taps(24), symmetric(taps(12, 12))),
    "2-4-symmetric": (2, 4, taps(12), symmetric(taps(24))),
    "any": (3, 5, taps(7), taps(4, 6)),
    "short": (4, 3, taps(2), None),
    "none": (1, 1, None, None),
}
PADDING = [16, 15, 17, 18]

# All dtypes, deciding and obeying codes, in an interpreter of its own, since the choice is made once.
INTERPRETER = """
import sys
import torch
import ganops

torch.set_num_threads(1)
results = []
for x, fu, fd, up, down, padding, codes in torch.load(sys.argv[1]):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        results.append(ganops.filtered_lrelu(x.to(dtype), fu, fd, None, up, down, padding, clamp=0.75))
        results.append(torch.ops.ganops.filtered_lrelu_grad(
            x.to(dtype), fu, fd, codes, 4 * codes.shape[3] - 1, [3, -5], up, down, padding, 2.0, 0.2, True
        ))
torch.save((torch.ops.ganops.cpu_instruction_set(), results), sys.argv[2])
"""


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def forward_and_backward(x: Tensor, name: str, padding: list[int] = PADDING) -> tuple[Tensor, Tensor, Tensor]:
    """Result, codes, gradient of its sum."""
    up, down, fu, fd = FILTERS[name]
    leaf = x.detach().requires_grad_()
    y, codes = torch.ops.ganops.filtered_lrelu(
        leaf, fu, fd, None, up, down, padding, 2**0.5, 0.2, 0.75, False, save_codes=True
    )
    (dx,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    return y.detach(), codes, dx


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("padding", [PADDING, [15, 18, 14, 17], [14, 17, 15, 16], [13, 16, 20, 19]])
def test_codes_equal_the_reference(name: str, padding: list[int]) -> None:
    """In float64: no sample lies within rounding of zero or of the clamp, except exact zeros."""
    up, _, fu, _ = FILTERS[name]
    x = image(1, 2, 19, 23)
    expected = reference.filtered_lrelu_codes(x, fu, None, up, tuple(padding), 2**0.5, 0.2, 0.75, False)
    assert torch.equal(forward_and_backward(x, name, padding)[1], expected)


@pytest.mark.parametrize("name", FILTERS)
def test_codes_do_not_change_the_result(name: str) -> None:
    x = image(1, 2, 19, 23).float()
    up, down, fu, fd = FILTERS[name]
    kept, codes, _ = forward_and_backward(x, name)
    assert torch.equal(ganops.filtered_lrelu(x, fu, fd, None, up, down, PADDING, clamp=0.75), kept)
    assert codes.numel() and codes.max() > 0


@pytest.mark.parametrize("name", FILTERS)
def test_any_phase_may_come_first(name: str) -> None:
    up, down, fu, fd = FILTERS[name]
    x = image(1, 2, 19, 23)
    for before in range(13, 18):
        arguments = (fu, fd, None, up, down, [before, 18, before + 1, 17], 2**0.5, 0.2, 0.75)
        with ganops.backend("reference"):
            expected = ganops.filtered_lrelu(x, *arguments).float()
        torch.testing.assert_close(ganops.filtered_lrelu(x.float(), *arguments), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", INSTRUCTION_SETS)
def test_instruction_sets_agree(wanted: str, tmp_path) -> None:
    best = torch.ops.ganops.cpu_instruction_set()
    if INSTRUCTION_SETS.index(wanted) > INSTRUCTION_SETS.index(best):
        pytest.skip(f"this machine has {best} at most")
    x = image(1, 3, 21, 26)
    codes = torch.randint(3, (4, 1, 3, 60, 17), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    packed = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
    cases = [(x, fu, fd, up, down, PADDING, packed) for up, down, fu, fd in FILTERS.values()]
    torch.save(cases, tmp_path / "in.pt")
    subprocess.run(
        [sys.executable, "-c", INTERPRETER, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")],
        env={**os.environ, "GANOPS_CPU_ISA": wanted},
        check=True,
    )
    used, results = torch.load(tmp_path / "out.pt")
    assert used == wanted
    results = iter(results)
    for _, fu, fd, up, down, padding, _ in cases:
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            x_exact = x.to(dtype).double()
            with ganops.backend("reference"):
                y = ganops.filtered_lrelu(x_exact, fu, fd, None, up, down, padding, clamp=0.75)
            arguments = (4 * packed.shape[3] - 1, (3, -5), up, down, tuple(padding), 2.0, 0.2, True)
            obeyed = reference.filtered_lrelu_grad(x_exact, fu, fd, packed, *arguments)
            for expected in (y, obeyed):
                result = next(results)
                assert result.dtype == dtype
                error = (result.double() - expected).abs().max() / expected.abs().max()
                assert error <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("channels", [1, 3, 16, 37])
def test_channels_last_equals_contiguous(name: str, channels: int) -> None:
    x = image(2, channels, 13, 11).float()
    expected = forward_and_backward(x, name)
    actual = forward_and_backward(x.contiguous(memory_format=torch.channels_last), name)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(1, 1, 90, 70), (1, 3, 40, 260), (3, 1, 200, 9), (1, 1, 23, 34)])
def test_any_number_of_threads_gives_the_same(name: str, shape: tuple[int, ...]) -> None:
    """Few channels are cut into tiles for the threads; tiles must not show. The last one has samples of its own."""
    x = image(*shape)
    threads = torch.get_num_threads()
    try:
        for after in range(15, 23):
            padding = [16, after, 17, after]
            torch.set_num_threads(1)
            expected = forward_and_backward(x, name, padding)
            for count in (2, 5, 16):
                torch.set_num_threads(count)
                for a, e in zip(forward_and_backward(x, name, padding), expected, strict=True):
                    assert torch.equal(a, e), (count, after)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("slope", [0.2, 0.0, 1.0, 1.5, -0.5])
@pytest.mark.parametrize("clamp", [None, 0.75])
def test_special_values_spread_as_far_as_the_filters(
    name: str, special: float, slope: float, clamp: float | None
) -> None:
    up, down, fu, fd = FILTERS[name]
    x = image(1, 1, 19, 23).float()
    x[0, 0, 9, 11] = special
    arguments = (fu, fd, None, up, down, PADDING, 2**0.5, slope, clamp)
    with ganops.backend("reference"):
        expected = ganops.filtered_lrelu(x, *arguments)
    torch.testing.assert_close(ganops.filtered_lrelu(x, *arguments), expected, equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [(-20, 0), (0, 30), (9, -9), (1, 1), (-2, 3)])
def test_nothing_passes_where_there_are_no_codes(offset: tuple[int, int]) -> None:
    """However far the codes lie from the image."""
    x, codes = image(1, 1, 6, 6), torch.zeros(1, 1, 4, 1, dtype=torch.uint8)
    arguments = (taps(3), taps(3), codes, 4, offset, 1, 1, (2, 2, 2, 2), 1.0, 0.2, False)
    expected = reference.filtered_lrelu_grad(x, *arguments)
    assert (expected == 0).all() == (max(map(abs, offset)) > 8)
    torch.testing.assert_close(torch.ops.ganops.filtered_lrelu_grad(x, *arguments), expected)


def test_zeros_keep_their_sign() -> None:
    """The slope goes by the sign bit: codes tell +0 from -0."""
    x = torch.tensor([0.0, -0.0, 1.0, -1.0]).reshape(1, 1, 1, 4)
    _, codes = torch.ops.ganops.filtered_lrelu(x, None, None, None, 1, 1, [0] * 4, 1.0, 0.2, -1.0, False, True)
    assert codes.flatten().tolist() == [0b01000100]
