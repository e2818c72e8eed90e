"""The convolution as an implicit matrix product on CPUs: its error, and where it serves."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ganops
from ganops.ops import _convolution, gemm_conv2d
from ganops.ops._convolution import Geometry, scaled_convolution
from ganops.ops.gemm_conv2d import FEW_OUTPUTS

pytestmark = pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")

convolve = gemm_conv2d.gemm_conv2d
# RMS of a result's error over that of the result: a few roundings of factors and results to 8 bits.
ROUNDINGS = 2**-7
SIZES = [(1, 3, 3), (5, 9, 26), (1, 6, 131), (1, 70, 80), (1, 1, 700)]


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def rms_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).square().mean() / expected.square().mean()).sqrt().item()


def scaled(x: Tensor, scale: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32)) * scale[:, :, None, None]


def in_three_products(
    x: Tensor, weight: Tensor, scale: Tensor | None, padding: Sequence[int], out_scale: Tensor | None = None
) -> Tensor:
    y: Tensor = torch.ops.ganops.gemm_conv2d(x, weight, scale, out_scale, *padding, False, True)
    return y


@pytest.mark.parametrize("kernel", [(1, 1, 0, 0), (3, 3, 1, 1), (1, 2, 0, 1), (2, 2, 1, 1), (3, 3, 5, 3)], ids=str)
@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (51, 81), (131, 3), (6, 4), (512, 33), (130, 257)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(size: tuple[int, int, int], channels: tuple[int, int], kernel: tuple[int, ...]) -> None:
    (n, height, width), (kernel_height, kernel_width, *padding) = size, kernel
    if height + 2 * padding[0] < kernel_height:
        return
    x, weight = normal(n, channels[0], height, width), normal(channels[1], channels[0], kernel_height, kernel_width)
    scale, out_scale = 1 + normal(n, channels[0]) / 4, 1 + normal(n, channels[1]) / 4

    x = x.to(torch.bfloat16)
    y = convolve(x, weight, scale, padding, out_scale=out_scale)
    factors = scaled(x, scale), weight
    if channels[1] > FEW_OUTPUTS or kernel != (1, 1, 0, 0):
        factors = factors[0].to(torch.bfloat16), factors[1].to(torch.bfloat16)
    expected = scaled(F.conv2d(*(t.double() for t in factors), padding=padding), out_scale)
    assert y.shape == expected.shape and y.dtype == torch.bfloat16
    rms = expected.square().mean().sqrt()
    assert ((y - expected).abs() <= expected.abs() * 2**-8 + rms * 1e-5).all()  # rounded once

    x = normal(n, channels[0], height, width)
    factors = scaled(x, scale).double(), weight.double()
    expected = scaled(F.conv2d(*factors, padding=padding), out_scale)
    largest = scaled(F.conv2d(*(t.abs() for t in factors), padding=padding), out_scale.abs())
    y = convolve(x, weight, scale, padding, out_scale=out_scale)
    assert y.shape == expected.shape and y.dtype == torch.float32
    assert ((y - expected).abs() <= 16 * 2**-24 * largest).all()

    y = in_three_products(x, weight, scale, padding, out_scale)
    assert y.shape == expected.shape and y.dtype == torch.float32
    # Of each product, that of what was left, and what the roundings of that left: at most 2**-16 each.
    assert ((y - expected).abs() <= 4 * 2**-16 * largest).all()
    assert rms_error(y, expected) <= 1e-5


def test_strides_and_dtypes() -> None:
    x, weight = normal(2, 8, 12, 11).to(memory_format=torch.channels_last), normal(3, 8, 3, 3).transpose(2, 3)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    assert rms_error(convolve(x, weight, None, (1, 1)), expected) <= 1e-6
    assert rms_error(convolve(x, weight.double(), torch.ones(2, 8).double(), (1, 1)), expected) <= 1e-6
    assert rms_error(convolve(x, weight.flip([2, 3]), None, (1, 1), flips=True), expected) <= 1e-6
    assert rms_error(in_three_products(x, weight, None, (1, 1)), expected) <= 1e-5
    assert rms_error(convolve(x.bfloat16(), weight.bfloat16(), None, (1, 1)), expected) <= ROUNDINGS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("outputs", "taps"), [(300, 3), (FEW_OUTPUTS, 1)])
def test_threads_share_the_work(outputs: int, taps: int, dtype: torch.dtype) -> None:
    x, weight = normal(1, 40, 60, 61, dtype=dtype), normal(outputs, 40, taps, taps)
    alone = convolve(x, weight, None, (0, 0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert torch.equal(convolve(x, weight, None, (0, 0)), alone)
    finally:
        torch.set_num_threads(threads)


def test_not_a_number_stays_so() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        x = normal(1, 3, 12, 12, dtype=dtype)
        x[0, 1, 5, 5] = torch.nan
        for way in (convolve, in_three_products):
            y = way(x, normal(4, 3, 3, 3), None, (1, 1))
            assert y[:, :, 4:7, 4:7].isnan().all()
            assert y.isnan().sum() == 4 * 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"GANOPS_CPU_ISA": "baseline"},
        {"GANOPS_CPU_ISA": "x86-64-v3"},
        {"GANOPS_BFLOAT16": "0"},
        {"GANOPS_AMX": "emulate"},
    ],
    ids=lambda environment: "-".join(environment.values()),
)
def test_other_instructions(environment: dict[str, str]) -> None:
    some = "51 or 131 or with_amx or three_products"  # of this file; 51 and 131 channels
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", some, __file__]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def python(code: str, **environment: str) -> str:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_the_environment_prevents_it() -> None:
    code = "from ganops.ops.gemm_conv2d import instructions; print(instructions())"
    assert python(code, GANOPS_BFLOAT16="0", GANOPS_AMX="emulate").strip() == "none"
    assert python(code, GANOPS_CPU_ISA="x86-64-v3").strip() == "none"
    assert python(code, GANOPS_AMX="emulate").strip() == "AMX, emulated"
    without = python(code, GANOPS_AMX="0").strip()
    tried = python(code, GANOPS_AMX="1").strip()  # where tiles are no instructions, a child dies of it
    assert tried in ("AMX", without)
    assert without == gemm_conv2d.instructions().replace("AMX", "AVX512-BF16")


Calls = list[torch.dtype]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The dtypes of x where the convolution was called, on a processor with AVX-512 and AVX512-BF16."""
    calls = []

    def counted(x: Tensor, *args: Any) -> Tensor:
        calls.append(x.dtype)
        return convolve(x, *args)

    monkeypatch.setattr(gemm_conv2d, "instructions", lambda: "AVX512-BF16")
    monkeypatch.setattr(gemm_conv2d, "_vector_instructions", lambda: "x86-64-v4")
    monkeypatch.setattr(_convolution.gemm, "gemm_conv2d", counted)
    return calls


@pytest.fixture
def calls_with_amx(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setattr(gemm_conv2d, "instructions", lambda: "AMX")
    return calls


def gradients(x: Tensor, weight: Tensor, styles: Tensor, padding: int) -> list[Tensor]:
    """The convolution, its gradients, and one of a gradient."""
    inputs = [t.clone().requires_grad_() for t in (x, weight, styles)]
    y = scaled_convolution(*inputs, Geometry(padding=(padding, padding)))
    first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    return [y, *first, torch.autograd.grad(first[2].sum(), inputs[0])[0]]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("taps", [1, 2])
def test_gradients(batch: int, taps: int, calls: Calls) -> None:
    inputs = normal(batch, 24, 70, 66), normal(20, 24, taps, taps), normal(batch, 24)
    inputs = tuple(t.to(torch.bfloat16) for t in inputs)
    actual = gradients(*inputs, taps // 2)
    assert len(calls) >= 3  # forward, the input's gradient, and of the second order
    for a, b in zip(actual, gradients(*(t.double() for t in inputs), taps // 2), strict=True):
        assert rms_error(a, b) <= 2 * ROUNDINGS


def modulated(x: Tensor, outputs: int, taps: int, **options: Any) -> Tensor:
    weight, styles = normal(outputs, x.shape[1], taps, taps), 1 + normal(x.shape[0], x.shape[1]) / 4
    return ganops.modulated_conv2d(x, weight, styles, padding=taps // 2, act="lrelu", **options)


UP = {"up": 2, "resample_filter": ganops.setup_filter([1, 3, 3, 1])}
DOWN = {"down": 2, "resample_filter": ganops.setup_filter([1, 3, 3, 1])}


@pytest.mark.parametrize(
    ("size", "outputs", "taps", "options", "bfloat16_calls", "float32_calls"),
    [
        ((2, 20, 64, 64), 40, 1, {}, 1, 0),
        ((1, 20, 9, 9), 3, 1, {}, 1, 1),
        ((1, 20, 9, 9), 3, 3, {}, 1, 0),
        ((1, 130, 64, 64), 40, 1, {}, 1, 1),
        ((1, 20, 64, 64), 20, 3, UP, 4, 0),
        ((2, 130, 32, 32), 40, 1, {}, 0, 0),
        ((1, 20, 64, 64), 40, 3, {}, 0, 0),
        ((1, 20, 64, 64), 40, 3, DOWN, 0, 0),
    ],
)
def test_where_it_serves(
    size: tuple[int, ...],
    outputs: int,
    taps: int,
    options: dict[str, Any],
    bfloat16_calls: int,
    float32_calls: int,
    calls: Calls,
) -> None:
    x = normal(*size, dtype=torch.bfloat16)
    with torch.no_grad():
        with ganops.backend("reference"):
            expected = modulated(x.double(), outputs, taps, **options)
            modulated(x, outputs, taps, **options)
            assert not calls
        y = modulated(x, outputs, taps, **options)
        assert calls == bfloat16_calls * [torch.bfloat16]
        assert rms_error(y, expected) <= ROUNDINGS
        calls.clear()
        y = modulated(x.float(), outputs, taps, **options)
        assert calls == float32_calls * [torch.float32]
        assert rms_error(y, expected) <= 1e-6
    calls.clear()
    modulated(x.requires_grad_(), outputs, taps, **options)
    assert calls == float32_calls * [torch.float32]  # in which gradients are computed


def test_few_outputs_need_no_bfloat16_instructions(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm_conv2d, "instructions", lambda: "none")
    x = normal(1, 20, 9, 9, dtype=torch.bfloat16)
    with torch.no_grad():
        for outputs in (FEW_OUTPUTS, FEW_OUTPUTS + 1):
            modulated(x, outputs, 1)
    assert calls == [torch.bfloat16]


def test_where_it_serves_with_amx(calls_with_amx: Calls) -> None:
    x = normal(2, 80, 9, 9, dtype=torch.bfloat16)
    with torch.no_grad():
        for taps in (1, 3):
            modulated(x, 70, taps)
    assert calls_with_amx == 2 * [torch.bfloat16]
    modulated(x.requires_grad_(), 70, 3)
    assert len(calls_with_amx) == 2


def test_the_environment_prevents_all_of_it() -> None:
    code = "import torch; from ganops.ops.gemm_conv2d import serves; "
    code += "print(serves(torch.ones(1, 256, 64, 64), torch.ones(3, 256, 1, 1)))"
    assert python(code, GANOPS_GEMM="0").strip() == "False"


@pytest.fixture(params=["high", "highest"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("batch", [1, 2])
def test_three_products_of_float32(batch: int, precision: str, calls_with_amx: Calls) -> None:
    """Where the precision allows it, but not where Winograd's convolution serves, nor for one tap."""
    inputs = normal(batch, 24, 40, 33), normal(20, 24, 3, 3), normal(batch, 24)
    actual = gradients(*inputs, 1)
    assert set(calls_with_amx) == ({torch.float32} if precision == "high" else set())
    for a, b in zip(actual, gradients(*(t.double() for t in inputs), 1), strict=True):
        assert rms_error(a, b) <= 3e-5
    calls_with_amx.clear()
    scaled_convolution(normal(1, 64, 40, 40), normal(64, 64, 3, 3), None, Geometry())
    scaled_convolution(normal(1, 64, 40, 40), normal(64, 64, 1, 1), None, Geometry())
    assert not calls_with_amx


def test_infinity_stays_so() -> None:
    for outputs in (3, 20):
        x, weight = normal(1, 5, 40, 40), normal(outputs, 5, 1, 1)
        x[0, 4, 5, 5] = torch.inf
        y = convolve(x, weight, None, (0, 0))
        assert (y[0, :, 5, 5] == torch.inf * weight[:, 4, 0, 0].sign()).all()
        assert (~y.isfinite()).sum() == outputs


X, WEIGHT, SCALE, OUT_SCALE = normal(2, 3, 5, 5), normal(4, 3, 2, 3), normal(2, 3), normal(2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], WEIGHT, None, None, 1, 1), "x must be"),
        ((X.double(), WEIGHT, None, None, 1, 1), "x must be"),
        ((X.half(), WEIGHT, None, None, 1, 1), "x must be"),
        ((X, WEIGHT[:, :2], None, None, 1, 1), "weight must be"),
        ((X, WEIGHT[..., :0], None, None, 1, 1), "weight must be"),
        ((X, WEIGHT[0], None, None, 1, 1), "weight must be"),
        ((X, WEIGHT, SCALE[:1], None, 1, 1), "scale must be"),
        ((X, WEIGHT, SCALE[:, :2], None, 1, 1), "scale must be"),
        ((X, WEIGHT, None, OUT_SCALE[:1], 1, 1), "out_scale must be"),
        ((X, WEIGHT, None, OUT_SCALE[:, :3], 1, 1), "out_scale must be"),
        ((X, WEIGHT, None, None, -2, 1), "padding -2"),
        ((X[:, :, :1], WEIGHT, None, None, 0, 1), "padding 0 around 1"),
    ],
)
def test_shapes_that_do_not_fit(arguments: tuple[object, ...], message: str) -> None:
    """No kernel reads what is not there, whoever calls the operator."""
    with pytest.raises(RuntimeError, match=message):
        torch.ops.ganops.gemm_conv2d(*arguments, False, False)
