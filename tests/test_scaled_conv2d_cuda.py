"""The convolution kernel on the emulator: values and gradients against float64, counts, and what nvcc makes of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import nvcc
import pytest
import torch
from cases import DTYPES, FORMATS, SCALED_CONV2D, TOLERANCE, Case, relative_error
from hypothesis import strategies as st
from simt_emulator import Emulator, Launch
from simt_kernels import SCHEDULES
from simt_ops import NAMESPACES, emulated_ops
from test_ops import assert_close, gradients, reference_gradients, with_float16_normalisation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import ganops
from ganops import _cost_model
from ganops.reference import scaled_conv2d as reference

LINEAR = ("linear", 0.0, 1.0, -1.0)
ACTIVATIONS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish", "gelu")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """The kernels in force, this one for every convolution."""
    emulator = emulated_ops("simt")
    emulator.configure()
    emulator.clear()
    with ganops.backend("simt"), _cost_model.forced(True):
        yield emulator
    emulator.configure()


def assert_clean(emulator: Emulator) -> list[Launch]:
    launches = emulator.launches()
    assert [str(d) for launch in launches for d in launch.diagnostics] == []
    return launches


def convolutions(launches: list[Launch]) -> list[Launch]:
    return [launch for launch in launches if "scaled_conv2d_kernel" in launch.kernel]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def call_kernel(x: Tensor, weight: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """The operator's result on the emulator and in float64; scales and noise as float32, which they are for 16 bits."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    typed = [a.to(dtype) if isinstance(a, Tensor) else a for a in (weight, *args)]
    y = getattr(torch.ops, NAMESPACES["simt"]).scaled_conv2d(x, *typed)
    exact = [a.double() if isinstance(a, Tensor) else a for a in typed]
    return y, reference.scaled_conv2d(x.double(), *exact)


# Each case in two of the types and one format; all of them meet all.
CHOICES = [
    (case, DTYPES[(number + other) % 3], FORMATS[(number + other // 2) % 2])
    for number, case in enumerate(SCALED_CONV2D)
    for other in (0, 1)
] + [
    (SCALED_CONV2D[2], torch.float64, FORMATS[1]),
    (SCALED_CONV2D[7], torch.float64, FORMATS[0]),
    (SCALED_CONV2D[13], torch.float16, FORMATS[0]),
    (SCALED_CONV2D[13], torch.float32, FORMATS[0]),
]


def with_smooth_activation(case: Case) -> Case:
    """For gradients in 16 bits: which side of a kink or of the clamp a result is on, its last rounding may decide."""
    smooth = {"act": "swish", "clamp": None} if "act" in case.options else {"clamp": None}
    return dataclasses.replace(case, options={**case.options, **smooth})


@pytest.mark.parametrize(("case", "dtype", "memory_format"), CHOICES, ids=str)
def test_layers(case: Case, dtype: torch.dtype, memory_format: torch.memory_format, emulator: Emulator) -> None:
    """Without a gradient, in one kernel; and with one, forward and backward."""
    tensors = case.tensors(dtype, memory_format=memory_format)
    exact = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
    with torch.no_grad():
        y = case.run(tensors)
        with ganops.backend("reference"):
            expected = [with_float16_normalisation(case, dtype).run(exact)]
    assert y.dtype == dtype and y.is_contiguous(memory_format=memory_format)
    assert_close([y], expected, TOLERANCE[dtype], (1,))
    assert len(convolutions(assert_clean(emulator))) == 1

    case = with_smooth_activation(case) if dtype.itemsize == 2 else case
    y = case.run(tensors)
    with ganops.backend("reference"):
        exact_y = with_float16_normalisation(case, dtype).run(exact)
    seed = normal(*y.shape, seed=1).to(dtype)
    actual = [y, *torch.autograd.grad(y, list(tensors.values()), seed)]
    expected = [exact_y, *torch.autograd.grad(exact_y, list(exact.values()), seed.double())]
    assert_close(actual, expected, TOLERANCE[dtype], (1, 3))
    assert len(convolutions(assert_clean(emulator))) == 3  # once more forward, and for the gradient in x


@pytest.mark.parametrize("number", [0, 7, 9])
def test_gradients_of_gradients(number: int, emulator: Emulator) -> None:
    case = SCALED_CONV2D[number]
    small = {name: tuple(min(n, 7) for n in shape) for name, shape in case.shapes.items() if name != "noise"}
    case = Case(case.op, case.name, small, case.options)
    tensors = case.tensors(torch.float64)
    actual, expected = gradients(case, tensors, 2), reference_gradients(case, tensors, 2)
    assert_close(actual, expected, TOLERANCE[torch.float64], (1, 10, 10, 10, 100))
    assert len(convolutions(assert_clean(emulator))) > 3


@pytest.mark.parametrize(("dtype", "out_channels"), [(torch.float16, 512), (torch.float32, 32)], ids=str)
def test_many_channels(dtype: torch.dtype, out_channels: int, emulator: Emulator) -> None:
    x, weight = normal(1, 512, 4, 5).to(dtype), normal(out_channels, 512, 3, 3) / 68
    scales = normal(1, 512, seed=1), normal(1, out_channels, seed=2)
    args = (*scales, None, normal(out_channels), 1, 1, [1] * 4, "lrelu", 0.2, 1.4, 256.0)
    y, expected = call_kernel(x, weight, *args)
    assert relative_error(y, expected) <= 4 * TOLERANCE[dtype]  # sums of 4608 products
    assert_clean(emulator)


@pytest.mark.parametrize("up", [1, 2])
def test_several_groups_of_tiles(up: int, emulator: Emulator) -> None:
    """The last one is shorter than the others; each has two tiles of output channels."""
    x, weight = normal(1, 3, 64, 75).half(), normal(70, 3, 3, 3)
    args = (None, None, None, None, up, 1, [2, 2, 2, 2], *LINEAR)
    y, expected = call_kernel(x, weight, *args)
    assert relative_error(y, expected) <= TOLERANCE[torch.float16]
    (launch,) = convolutions(assert_clean(emulator))
    assert launch.grid[0] / (2 * up**2) > 16


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations(act: str, emulator: Emulator) -> None:
    args = (normal(2, 3), normal(2, 5), normal(2, 1, 6, 7), normal(5), 1, 1, [1] * 4, act, 0.2, 1.3, 1.5)
    y, expected = call_kernel(normal(2, 3, 6, 7).float(), normal(5, 3, 3, 3), *args)
    assert relative_error(y, expected) <= TOLERANCE[torch.float32]
    assert_clean(emulator)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_schedules(memory_format: torch.memory_format, emulator: Emulator) -> None:
    """The same bits whatever comes first: blocks, warps, lanes."""
    x, weight = normal(2, 40, 12, 16).bfloat16().contiguous(memory_format=memory_format), normal(70, 40, 3, 3)
    results = []
    for (order, seed), os_threads in zip(SCHEDULES, (1, 2, 2), strict=True):
        emulator.configure(order, seed, os_threads)
        results.append(call_kernel(x, weight, normal(2, 40), None, None, None, 1, 1, [1] * 4, *LINEAR)[0])
    assert_clean(emulator)
    assert all(torch.equal(result, results[0]) for result in results[1:])


@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.data())
def test_any_shapes(data: st.DataObject, emulator: Emulator) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    samples, channels, out_channels, kernel = draw(1, 9), draw(1, 40), draw(1, 70), draw(1, 4)
    up, down, height = draw(1, 3), draw(1, 3), draw(1, 12)
    width = data.draw(st.one_of(st.integers(1, 20), st.sampled_from([16, 32, 48])))
    padding = [draw(-1, 4) for _ in range(4)]
    hypothesis.assume(height * up + sum(padding[2:]) >= kernel and width * up + sum(padding[:2]) >= kernel)
    dtype, memory_format = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(FORMATS))
    x = normal(samples, channels, height, width).to(dtype).contiguous(memory_format=memory_format)
    weight = normal(out_channels, channels, kernel, kernel, seed=1)
    emulator.clear()
    y, expected = call_kernel(
        x, weight, normal(samples, channels, seed=2), None, None, None, up, down, padding, *LINEAR
    )
    # Few values: their RMS may be that of a few small ones.
    scale = (channels * kernel**2) ** 0.5
    assert (y.double() - expected).abs().max() <= 4 * TOLERANCE[dtype] * max(scale, expected.square().mean().sqrt())
    assert_clean(emulator)


@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_storage_at_any_offset(offset: int, memory_format: torch.memory_format, emulator: Emulator) -> None:
    """x that does not start at a multiple of 16 bytes, nor its neighbours in memory that are not to be read."""
    x, weight = normal(2, 16, 8, 8).half().contiguous(memory_format=memory_format), normal(24, 16, 3, 3)
    storage = torch.full((x.numel() + 16,), float("nan"), dtype=x.dtype)[offset : offset + x.numel()]
    moved = storage.as_strided(x.shape, x.stride(), offset).copy_(x)
    rest = (None, None, None, None, 1, 1, [1] * 4, *LINEAR)
    assert torch.equal(call_kernel(moved, weight, *rest)[0], call_kernel(x, weight, *rest)[0])
    assert_clean(emulator)


def test_nothing_but_the_support_reaches_an_output(emulator: Emulator) -> None:
    x = torch.zeros(1, 3, 9, 20, dtype=torch.float16)
    x[0, 1, 4, 10] = float("nan")
    y, _ = call_kernel(x, normal(5, 3, 3, 3), None, None, None, None, 1, 1, [1] * 4, *LINEAR)
    expected = torch.zeros(9, 20, dtype=torch.bool)
    expected[3:6, 9:12] = True
    assert all(torch.equal(plane.isnan(), expected) for plane in y[0])


def test_a_weight_too_large_for_shared_memory(emulator: Emulator) -> None:
    x, weight = torch.zeros(1, 1, 80, 80), torch.zeros(1, 1, 70, 70)
    with pytest.raises(RuntimeError, match="a weight of 70x70 taps does not fit in the 166912 bytes"):
        call_kernel(x, weight, None, None, None, None, 1, 1, [0] * 4, *LINEAR)


class Seen(TorchDispatchMode):
    """The operators that run, and the most elements of any tensor that one returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.names = 0, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("resampling", [{}, {"up": 2}, {"down": 2}], ids=str)
def test_no_tensor_holds_the_weights_of_each_sample(resampling: dict[str, int], emulator: Emulator) -> None:
    n, i, o, size = 5, 16, 24, 4
    x, weight, styles = (
        normal(*shape).float().requires_grad_() for shape in ((n, i, size, size), (o, i, 3, 3), (n, i))
    )
    with Seen() as seen:
        y = ganops.modulated_conv2d(x, weight, styles, padding=1, **resampling)
        torch.autograd.grad(y.square().sum(), (x, weight, styles))
    up = resampling.get("up", 1)
    assert seen.elements <= max(n * max(i, o) * (size * up + 2) ** 2, o * i * 9) < n * o * i * 9


@dataclasses.dataclass(frozen=True)
class Layer:
    """A float16 layer whose launch is counted, and the greatest share of bytes over x, weight and y once each."""

    name: str
    channels: int
    out_channels: int
    taps: int
    size: int
    greatest_bytes: float
    up: int = 1
    down: int = 1

    def __str__(self) -> str:
        return self.name

    def geometry(self) -> tuple[int, int, list[int]]:
        """Padded as modulated_conv2d does around a resampling filter."""
        full = [self.taps - 1, self.taps - self.up] * 2
        return self.up, self.down, full if self.up > 1 else [0 if self.down > 1 else self.taps // 2] * 4


def test_weight_gradients_that_are_not_wanted_are_not_computed(emulator: Emulator) -> None:
    x, weight, styles = (normal(*shape).float().requires_grad_() for shape in ((2, 3, 5, 5), (4, 3, 3, 3), (2, 3)))

    def gradients_and_operators() -> tuple[tuple[Tensor | None, ...], set[str]]:
        y = ganops.modulated_conv2d(x, weight, styles, padding=1, demodulate=False)
        with Seen() as seen:
            return torch.autograd.grad(y.sum(), (x, weight, styles), allow_unused=True), seen.names

    expected, names = gradients_and_operators()
    assert "aten.convolution_backward.default" in names
    with ganops.no_weight_gradients():
        found, names = gradients_and_operators()
    assert found[1] is None and "aten.convolution_backward.default" not in names
    torch.testing.assert_close((found[0], found[2]), (expected[0], expected[2]))


# Of the early layer an image is one tile, so that blocks share no weights, and x, which every tile of channels reads
# anew, is small beside them. To RGB, weights are small, and all channels are one tile. In between each block reads all
# its weights, and the border of its tile.
LAYERS = (
    Layer("early", 256, 256, 3, 8, 1.2),
    Layer("to-rgb", 64, 3, 1, 32, 1.2),
    Layer("middle", 128, 128, 3, 32, 4.3),
    Layer("up2", 64, 64, 3, 16, 2.2, up=2),
    Layer("down2", 64, 64, 3, 33, 1.4, down=2),
)
GREATEST_WAVEFRONTS = 1.5


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_counts(layer: Layer, memory_format: torch.memory_format, emulator: Emulator) -> None:
    x = normal(1, layer.channels, layer.size, layer.size).half().contiguous(memory_format=memory_format)
    weight = normal(layer.out_channels, layer.channels, layer.taps, layer.taps)
    scales, b = (normal(1, layer.channels), normal(1, layer.out_channels)), normal(layer.out_channels)
    y, _ = call_kernel(x, weight, *scales, None, b, *layer.geometry(), "lrelu", 0.2, 1.4, 256.0)
    pack, launch = assert_clean(emulator)
    counters, used = launch.counters, {buffer.name: buffer for buffer in launch.buffers}
    floor = used["x"].bytes + used["packed"].bytes + used["y"].bytes
    assert floor == 2 * (x.numel() + weight.numel() + y.numel())
    moved = (counters["global_bytes_read"] + counters["global_bytes_written"]) / floor
    sectors = counters["global_sectors"] / counters["global_sectors_ideal"]
    wavefronts = counters["shared_wavefronts"] / counters["shared_wavefronts_ideal"]
    useful = y[0, 0].numel() / layer.up**2 * weight.numel() / counters["mma_macs"]
    print(f"{layer} {memory_format}: bytes {moved:.2f}, sectors {sectors:.3f}, wavefronts {wavefronts:.3f}, ", end="")
    print(f"multiply-adds {useful:.0%} of use, {launch.shared_bytes / 1024:.0f} KiB, {launch.grid} blocks")
    assert moved <= layer.greatest_bytes
    assert wavefronts <= GREATEST_WAVEFRONTS
    of_products = [a for a in launch.accesses if a.location and a.location.file.endswith("scaled_conv2d/product.h")]
    assert of_products and all(a.transactions == a.ideal for a in of_products)
    stores = [a for a in launch.accesses if a.memory == "global" and a.write]
    loads = [a for a in launch.accesses if a.buffer == "x"]
    is_last = memory_format == torch.channels_last
    # Planes are read by vectors where their rows are whole sectors.
    stores_vectors = layer.out_channels % 8 == 0 if is_last else y.shape[-1] % 8 == 0
    loads_vectors = layer.channels % 8 == 0 if is_last else x.shape[-1] % 16 == 0 or layer.taps == 1
    assert stores and all(a.bytes == (16 if stores_vectors else 2) for a in stores)
    assert loads and all(a.bytes == (16 if loads_vectors else 2) for a in loads)
    if stores_vectors and loads_vectors:
        assert sectors <= 1.01
    assert pack.counters["global_sectors"] == pack.counters["global_sectors_ideal"]
    assert pack.counters["shared_wavefronts"] == pack.counters["shared_wavefronts_ideal"]


@pytest.mark.parametrize("multiprocessors", [1, 3, 108])
@pytest.mark.parametrize("out_channels", [3, 40, 200])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_the_cost_model_knows_the_tiles(
    dtype: torch.dtype, out_channels: int, multiprocessors: int, emulator: Emulator
) -> None:
    x, weight = torch.zeros(1, 8, 16, 16, dtype=dtype), torch.zeros(out_channels, 8, 1, 1)
    emulator.set_device(80, multiprocessors, 163 * 1024)
    call_kernel(x, weight, None, None, None, None, 1, 1, [0] * 4, *LINEAR)
    emulator.set_device(80, 108, 163 * 1024)
    (launch,) = convolutions(assert_clean(emulator))
    tile = re.search(r"Tile<.*?, (\d+), (\d+), \d>", launch.kernel)
    assert tile is not None
    pixels, channels = map(int, tile.groups())
    expected, _ = _cost_model.tile_of(_cost_model.shapes_of(x, weight, 1, 1), multiprocessors)
    assert channels == expected
    # The kernel for few channels takes twice the pixels: as much work in half as many blocks.
    assert pixels % _cost_model.TILE_PIXELS == 0
    assert launch.grid == (256 // pixels * -(-out_channels // channels), 1, 1)


@pytest.mark.skipif(nvcc.missing() is not None, reason=str(nvcc.missing()))
def test_tensor_cores_multiply_16_bit_data() -> None:
    found = [i for i in nvcc.instances() if i.name.startswith("scaled_conv2d_kernel")]
    assert {instance.architecture for instance in found} == set(nvcc.ARCHITECTURES)
    for instance in found:
        assert (instance.stack, instance.spills) == (0, 0)
        if "half_t" in instance.name or "bfloat16_t" in instance.name:
            assert instance.instructions["HMMA"] >= 16 and instance.instructions["LDSM"] > 0
            assert instance.has_wide_loads
        else:
            assert instance.instructions["HMMA"] == 0
