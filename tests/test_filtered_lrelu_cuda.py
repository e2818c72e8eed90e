"""filtered_lrelu's CUDA kernels on the emulator: each instance and the kernel for all else, against float64."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import hypothesis
import pytest
import torch
from cases import DTYPES, FILTERED_LRELU, FORMATS, TOLERANCE, Case, _full, _taps
from hypothesis import strategies as st
from simt_emulator import Emulator, Launch
from simt_kernels import SCHEDULES
from simt_ops import NAMESPACES, emulated_ops
from test_ops import assert_close, gradients, reference_gradients

import ganops
from ganops.reference import filtered_lrelu as reference

TAPS12, OTHER12, TAPS24, FULL12 = _taps(12, 1), _taps(12, 2), _taps(24, 3), _full(12, 12, 4)


@dataclasses.dataclass(frozen=True)
class Instance:
    """Filters, factors and padding that the kernel's instance of this index is for, and the index of its mirror."""

    index: int
    mirror: int
    name: str
    fu: torch.Tensor
    up: int
    fd: torch.Tensor
    down: int
    before: int  # padding, of the network where there is one

    def __str__(self) -> str:
        return self.name

    def case(self, height: int, width: int, after: int = 3, **options: object) -> Case:
        padding = [self.before, after, self.before, after]
        shapes = {"x": (2, 2, height, width), "b": (2,)}
        settings = {"fu": self.fu, "fd": self.fd, "up": self.up, "down": self.down, "padding": padding, "clamp": 1.0}
        return Case("filtered_lrelu", self.name, shapes, {**settings, **options})


INSTANCES = [
    Instance(0, 0, "up2-down2", TAPS12, 2, OTHER12, 2, 9),
    Instance(1, 2, "up4-down2", TAPS24, 4, TAPS12, 2, -6 + 8),
    Instance(2, 1, "up2-down4", TAPS12, 2, TAPS24, 4, 12),
    Instance(3, 5, "up2-radial-down2", TAPS12, 2, FULL12, 2, 11),
    Instance(4, 6, "up4-radial-down2", TAPS24, 4, FULL12, 2, -2 + 8),
    Instance(5, 3, "radial-up2-down2", FULL12, 2, TAPS12, 2, 11),
    Instance(6, 4, "radial-up2-down4", FULL12, 2, TAPS24, 4, 12),
]
SINGLE_AND_HALF = [dtype for dtype in DTYPES if dtype != torch.float64]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    emulator = emulated_ops("simt")
    emulator.configure()
    emulator.clear()
    with ganops.backend("simt"):
        yield emulator
    emulator.configure()


def kernels(launches: list[Launch]) -> list[tuple[str, ...]]:
    """("direct",) or ("march", index, whether it reads codes) of each launch."""
    found = []
    for launch in launches:
        match = re.search(r"filtered_lrelu_(\w+)_kernel<[\w:]+(?:, (\d), (\w+))?>", launch.kernel)
        assert match is not None
        found.append(tuple(group for group in match.groups() if group))
    return found


def assert_clean(emulator: Emulator) -> list[Launch]:
    launches = emulator.launches()
    assert [str(d) for launch in launches for d in launch.diagnostics] == []
    return launches


def check(case: Case, dtype: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format) -> None:
    """Value and gradients for a random seed against the float64 reference."""
    tensors = case.tensors(dtype, memory_format=memory_format)
    y = case.run(tensors)
    assert y.dtype == dtype
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    actual = [y, *torch.autograd.grad(y, list(tensors.values()), seed)]
    exact = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
    with ganops.backend("reference"):
        exact_y = case.run(exact)
        expected = [exact_y, *torch.autograd.grad(exact_y, list(exact.values()), seed.double())]
    assert_close(actual, expected, TOLERANCE[dtype], (1, 3))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", SINGLE_AND_HALF, ids=str)
@pytest.mark.parametrize("instance", INSTANCES, ids=str)
def test_instances(
    instance: Instance, dtype: torch.dtype, memory_format: torch.memory_format, emulator: Emulator
) -> None:
    check(instance.case(68 // instance.up, 134 // instance.up), dtype, memory_format)
    forward, backward = kernels(assert_clean(emulator))
    assert forward == ("march", str(instance.index), "false")
    assert backward == ("march", str(instance.mirror), "true")


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("instance", INSTANCES, ids=str)
def test_paddings_of_every_phase(instance: Instance, phase: int, emulator: Emulator) -> None:
    """Outputs may start at any sample of a group, along either axis."""
    x_before, y_before = instance.before + phase, instance.before - phase // 2
    case = instance.case(24, 70, padding=[x_before, 9, y_before, 8])
    check(case, torch.float32)
    forward, backward = kernels(assert_clean(emulator))
    assert forward == ("march", str(instance.index), "false")
    assert backward == ("march", str(instance.mirror), "true")


@pytest.mark.parametrize("flip_filter", [False, True])
@pytest.mark.parametrize("instance", INSTANCES, ids=str)
def test_gradients_of_gradients(instance: Instance, flip_filter: bool, emulator: Emulator) -> None:
    case = instance.case(21, 23, flip_filter=flip_filter)
    tensors = case.tensors(torch.float32)
    actual, expected = gradients(case, tensors, 2), reference_gradients(case, tensors, 2)
    assert_close(actual, expected, TOLERANCE[torch.float32], (1, 10, 10, 10, 100))
    assert ("march", str(instance.index), "true") in kernels(assert_clean(emulator))


@pytest.mark.parametrize("clamp", [-1.0, 0.4])
@pytest.mark.parametrize("instance", INSTANCES, ids=str)
def test_codes(instance: Instance, clamp: float, emulator: Emulator) -> None:
    options = instance.case(25, 75).options
    tensors = instance.case(25, 75).tensors(torch.float32)
    x, b = tensors["x"].detach(), tensors["b"].detach()
    fu, fd, up, down, padding = (options[key] for key in ("fu", "fd", "up", "down", "padding"))
    op = getattr(torch.ops, NAMESPACES["simt"]).filtered_lrelu
    _, codes = op(x, fu, fd, b, up, down, padding, 1.3, 0.2, clamp, False, True)
    exact = reference.filtered_lrelu_codes(x.double(), fu, b.double(), up, padding, 1.3, 0.2, clamp, False)
    assert torch.equal(codes, exact)
    seen = {int(code) for i in range(4) for code in (codes >> 2 * i & 3).unique()}
    assert seen == ({0, 1} if clamp < 0 else {0, 1, 2})
    assert kernels(assert_clean(emulator)) == [("march", str(instance.index), "false")]


@pytest.mark.parametrize("instance", INSTANCES, ids=str)
def test_schedules(instance: Instance, emulator: Emulator) -> None:
    case, results = instance.case(26, 71), []
    for (order, seed), os_threads in zip(SCHEDULES, (1, 2, 2), strict=True):
        emulator.configure(order, seed, os_threads)
        tensors = case.tensors(torch.bfloat16)
        y = case.run(tensors)
        results.append((y, *torch.autograd.grad(y.float().sum(), list(tensors.values()))))
    assert len(assert_clean(emulator)) == 2 * len(SCHEDULES)
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


@hypothesis.settings(max_examples=20, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.data())
def test_ragged_shapes(data: st.DataObject, emulator: Emulator) -> None:
    """Any sizes and paddings."""
    instance = data.draw(st.sampled_from(INSTANCES))
    height, width = data.draw(st.integers(4, 40)), data.draw(st.integers(4, 80))
    padding = [instance.before + data.draw(st.integers(-8, 8)) for _ in range(2)]
    taps = instance.fu.shape[-1] + instance.fd.shape[-1]
    after = [data.draw(st.integers(0, 9)) + taps for _ in range(2)]
    case = instance.case(height, width, padding=[padding[0], after[0], padding[1], after[1]], slope=-0.3, clamp=0.7)
    dtype = data.draw(st.sampled_from(SINGLE_AND_HALF))
    emulator.clear()
    check(case, dtype, data.draw(st.sampled_from(FORMATS)))
    assert kernels(assert_clean(emulator))[0] == ("march", str(instance.index), "false")


@pytest.mark.parametrize("offset", [1, 3, 5])
def test_storage_at_any_offset(offset: int, emulator: Emulator) -> None:
    """x that does not start at a multiple of 16 bytes, nor its neighbours in memory that are not to be read."""
    case = INSTANCES[0].case(20, 33)
    tensors = case.tensors(torch.float16)
    expected = case.run(tensors)
    x = tensors["x"].detach()
    moved = torch.full((x.numel() + 16,), float("nan"), dtype=x.dtype)[offset : offset + x.numel()].view_as(x)
    moved.copy_(x)
    assert torch.equal(case.run({**tensors, "x": moved.requires_grad_()}), expected)
    assert_clean(emulator)


@pytest.mark.parametrize(("scale", "size"), [(2.0**-16, 4096.0), (2.0**12, 2.0**-6)])
def test_taps_that_float16_cannot_hold(scale: float, size: float, emulator: Emulator) -> None:
    """The tensor cores' taps are 16-bit numbers, scaled to fit."""
    instance = INSTANCES[3]
    x = (torch.randn(1, 2, 30, 41, generator=torch.Generator().manual_seed(0)) * size).half()
    arguments = (instance.fu, instance.fd * scale, None, 2, 2, 9)
    y = ganops.filtered_lrelu(x, *arguments)
    with ganops.backend("reference"):
        expected = ganops.filtered_lrelu(x.double(), *arguments)
    assert_close([y], [expected], TOLERANCE[torch.float16], (1,))
    assert kernels(assert_clean(emulator)) == [("march", "3", "false")]


DIRECT_DTYPES = [torch.float64, torch.float16]


@pytest.mark.parametrize("dtype", DIRECT_DTYPES, ids=str)
@pytest.mark.parametrize("case", [c for c in FILTERED_LRELU if c.name not in ("empty", "wide")], ids=str)
def test_direct_kernel(case: Case, dtype: torch.dtype, emulator: Emulator) -> None:
    check(case, dtype, torch.channels_last if dtype == torch.float64 else torch.contiguous_format)
    names = kernels(assert_clean(emulator))
    assert dtype == torch.float16 or names == [("direct",), ("direct",)]


def test_a_filter_longer_than_a_piece(emulator: Emulator) -> None:
    """The direct kernel's shared memory holds 64 x 32 samples; no filter is too long for it."""
    case = Case(
        "filtered_lrelu", "long", {"x": (1, 1, 40, 70)}, {"fu": _taps(5, 1), "fd": _full(35, 67, 2), "padding": 4}
    )
    check(case, torch.float32)
    assert kernels(assert_clean(emulator)) == [("direct",), ("direct",)]
