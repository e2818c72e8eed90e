"""Modulated convolutions on a CPU where no gradient is needed: other ways to the same values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import ADAPTIVE_MODULATED_CONV2D, DTYPES, MODULATED_CONV2D, TOLERANCE, Case, relative_error
from test_ops import reference_gradients, with_float16_normalisation
from torch import Tensor

import ganops
from ganops.ops import _convolution, _phases, modulated_conv2d
from ganops.reference.modulated_conv2d import epilogue

EPILOGUE, IN_PLACE = torch.ops.ganops.modulated_conv2d_epilogue, torch.ops.ganops.modulated_conv2d_epilogue_
PHASES = torch.ops.ganops.modulated_conv2d_phases.default
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", MODULATED_CONV2D + ADAPTIVE_MODULATED_CONV2D, ids=str)
def test_values_without_a_graph(case: Case, dtype: torch.dtype, bfloat16: bool, monkeypatch) -> None:
    """Whether or not the processor multiplies bfloat16 itself."""
    monkeypatch.setattr(_convolution, "_multiplies_bfloat16", lambda: bfloat16)
    tensors = case.tensors(dtype)
    expected = reference_gradients(with_float16_normalisation(case, dtype), tensors, order=0)
    with torch.no_grad():
        y = case.run(tensors)
    assert y.dtype == dtype and y.is_contiguous()
    assert relative_error(y, expected[0].detach()) <= TOLERANCE[dtype]


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("taps", [(1, 1), (4, 4), (3, 5), (12, 12)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (8, 9), (5, 80)], ids=str)
@pytest.mark.parametrize("padding", [(1, 2, 3, 0), (-1, 2, 3, -2), (12, 12, 12, 12), (60, 0, -1, 20)], ids=str)
def test_phases(taps: tuple[int, int], size: tuple[int, int], padding: tuple[int, ...], dtype: torch.dtype) -> None:
    height, width = size
    out = [2 * height + sum(padding[2:]) - taps[0], 2 * width + sum(padding[:2]) - taps[1]]
    if min(out) < 1:
        return
    phases = [normal(2, 3, h, w, dtype=dtype) for h in (height, height - 1) for w in (width, width - 1)]
    scale, noise, b = normal(2, 3, dtype=dtype), normal(2, 1, *out, dtype=dtype), normal(3, dtype=dtype)
    options: tuple[Any, ...] = (padding, "lrelu", 0.2, 1.5, 3.0)
    f = normal(*taps).float()
    y = PHASES(*phases, f, scale, noise, b, *options)
    expected = _phases._reference(*(t.double() for t in (*phases, f, scale, noise, b)), *options)
    assert y.shape == expected.shape
    assert relative_error(y, expected) <= 3 * TOLERANCE[dtype]
    bare = (padding, "linear", 0.0, 1.0, -1.0)
    expected = _phases._reference(*(t.double() for t in (*phases, f)), None, None, None, *bare)
    assert relative_error(PHASES(*phases, f, None, None, None, *bare), expected) <= 3 * TOLERANCE[dtype]


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 12, 16, 300, 700])
@pytest.mark.parametrize("pixels", [(1, 3), (9, 23)], ids=str)
def test_epilogue(
    pixels: tuple[int, int], channels: int, memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    check_epilogue((3, channels, *pixels), memory_format, dtype)


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_epilogue_of_large_images(memory_format: torch.memory_format) -> None:
    """Which is written past the caches; neither planes nor pixels are whole vectors."""
    check_epilogue((3, 11, 263, 257), memory_format, torch.float32)


def check_epilogue(shape: tuple[int, int, int, int], memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    n, c, *pixels = shape
    x = normal(*shape, dtype=dtype).to(memory_format=memory_format)
    activation = ("lrelu", 0.2, 1.5, 3.0)
    scale, b = normal(n, c, dtype=dtype), normal(c, dtype=dtype)
    noises = normal(n, 1, *pixels, dtype=dtype), normal(1, 1, *pixels, dtype=dtype)
    for operands in [(None, None, None), (scale, None, b), (None, noises[0], b), (scale, noises[1], None)]:
        expected = epilogue(x.double(), *(t if t is None else t.double() for t in operands), *activation)
        y = EPILOGUE(x, *operands, *activation)
        assert y.is_contiguous(memory_format=memory_format)
        assert relative_error(y, expected) <= TOLERANCE[dtype]
        y = x.clone()
        IN_PLACE(y, *operands, *activation)
        assert relative_error(y, expected) <= TOLERANCE[dtype]


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
def test_in_place_of_what_is_not_dense() -> None:
    wide = normal(2, 3, 4, 10)
    x, rest = wide[..., ::2], wide[..., 1::2].clone()
    expected = epilogue(x, None, None, None, "relu", 0.0, 1.0, -1.0)
    IN_PLACE(x, None, None, None, "relu", 0.0, 1.0, -1.0)
    assert torch.equal(x, expected) and torch.equal(wide[..., 1::2], rest)


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
def test_a_convolution_without_a_graph_is_finished_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    convolve, convolved = modulated_conv2d.resampled_conv2d, []

    def kept(*args: Any) -> Tensor:
        convolved.append(convolve(*args))
        return convolved[-1]

    monkeypatch.setattr(modulated_conv2d, "resampled_conv2d", kept)
    x, weight, styles = normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(2, 3)
    y = ganops.modulated_conv2d(x, weight, styles, act="lrelu")
    assert y.data_ptr() == convolved[0].data_ptr()
    y = ganops.modulated_conv2d(x, weight.requires_grad_(), styles, act="lrelu")
    assert y.data_ptr() != convolved[1].data_ptr()


def calls_of_phases(tensors: dict[str, Tensor], **options: Any) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        ganops.modulated_conv2d(**tensors, up=2, padding=1, **options)
    return sum(event.name == "ganops::modulated_conv2d_phases" for event in profiled.events())


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
@pytest.mark.parametrize("wanted", ["x", "weight", "styles", "noise", "bias"])
def test_phases_serve_only_where_no_gradient_is_needed(wanted: str) -> None:
    shapes = {"x": (1, 3, 4, 5), "weight": (2, 3, 3, 3), "styles": (1, 3), "noise": (8, 10), "bias": (2,)}
    tensors = {name: normal(*shape) for name, shape in shapes.items()}
    assert calls_of_phases(tensors) == 1
    tensors[wanted].requires_grad_()
    assert calls_of_phases(tensors, demodulate=False) == 0
    y = ganops.modulated_conv2d(**tensors, up=2, padding=1, demodulate=False)
    assert torch.autograd.grad(y.square().sum(), tensors[wanted])[0].abs().max() > 0


@pytest.mark.parametrize("prenormalize", ["none", "max", "rms"])
@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        pytest.param((1, 4, 16, 16), (5, 4, 1, 1), id="lone"),
        pytest.param((2, 64, 40, 20), (64, 64, 3, 3), id="winograd"),
        pytest.param((2, 128, 64, 64), (8, 128, 1, 1), id="gemm"),
    ],
)
def test_no_pass_follows_a_convolution_that_is_only_demodulated(
    shape: tuple[int, ...], filters: tuple[int, ...], prenormalize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, styles = (normal(*size, dtype=torch.float32) for size in (shape, filters, shape[:2]))
    with ganops.backend("reference"):
        doubles = (t.double() for t in (x, weight, styles))
        expected = ganops.modulated_conv2d(*doubles, padding=1, prenormalize=prenormalize)
    calls: list[str] = []
    for module in (modulated_conv2d, _convolution):
        monkeypatch.setattr(module, "call", lambda name, *args: calls.append(name))
    y = ganops.modulated_conv2d(x, weight, styles, padding=1, prenormalize=prenormalize)
    assert relative_error(y, expected) <= (2e-5 if shape[1] == 64 else TOLERANCE[torch.float32])  # Winograd's, or not
    assert not calls


@pytest.mark.parametrize("size", [0, 1e-15, 1e15])
@pytest.mark.parametrize("graph", [False, True])
def test_root_mean_squares_of_any_size(graph: bool, size: float) -> None:
    """Whose squares float32 holds: the weight's is part of the result's scale, which then does not overflow either."""
    x, weight, styles = (normal(*size, dtype=torch.float32) for size in ((2, 3, 5, 5), (4, 3, 3, 3), (2, 3)))
    weight = (weight * size).requires_grad_(graph)
    with ganops.backend("reference"):
        expected = ganops.modulated_conv2d(x, weight, styles, prenormalize="rms")
    y = ganops.modulated_conv2d(x, weight, styles, prenormalize="rms")
    assert y.isfinite().all()
    torch.testing.assert_close(y, expected)


RENAMED = """
import torch, ganops
exact, torch.float32 = torch.float64, torch.float64
for channels, size, taps in ((64, 40, 3), (128, 64, 1)):
    shapes = (1, channels, size, size), (64, channels, taps, taps), (1, channels)
    tensors = [torch.randn(shape, dtype=exact) for shape in shapes]
    with ganops.backend("reference"):
        expected = ganops.modulated_conv2d(*tensors)
    torch.testing.assert_close(ganops.modulated_conv2d(*tensors), expected)
"""


def test_float32_may_be_renamed() -> None:
    """To run a network that names it in float64, after ganops is imported."""
    subprocess.run([sys.executable, "-c", RENAMED], check=True)


@pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (300, 70, 3, 3), (5, 7, 1, 1), (2, 3, 5, 2), (0, 3, 3, 3)], ids=str)
def test_filter_energy(shape: tuple[int, ...]) -> None:
    weight = normal(*shape, dtype=torch.float32)
    for w in (weight, weight.transpose(2, 3)):
        energy = torch.ops.ganops.filter_energy(w)
        torch.testing.assert_close(energy, w.double().square().sum([2, 3]).float())
    for wrong in (weight[0:1, 0], weight.double()):
        with pytest.raises(RuntimeError, match="weight must be"):
            torch.ops.ganops.filter_energy(wrong)


@pytest.mark.parametrize("options", [[], ["--backward", "--processor-time"]], ids=str)
def test_benchmark(options: list[str]) -> None:
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "modulated_conv2d.py"
    command = [sys.executable, str(script), "1x1-256", "--repeat", "1", "--threads", "1", *options]
    head, _, line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "threads: 1" in head and line.startswith("1x1-256") and len(line.split()) == 6
