"""Winograd's convolution on CPUs: its error, and where it serves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import relative_error
from torch import Tensor

import ganops
from ganops.ops import _convolution
from ganops.ops._convolution import Geometry, scaled_convolution
from ganops.ops.winograd_conv2d import MIN_CHANNELS, winograd_conv2d, winograd_conv2d_weight_grad
from ganops.reference.modulated_conv2d import scaled

LARGEST_ERROR = 2e-5  # of 512 channels of normal values

pytestmark = pytest.mark.skipif(ganops.backends()["cpu"] != "available", reason="no compiled kernels")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


SIZES = [(1, 3, 3), (2, 4, 9), (1, 17, 70), (3, 21, 66), (1, 6, 131), (60, 8, 9)]


def weight_gradient(dy: Tensor, x: Tensor, padding: tuple[int, int]) -> Tensor:
    return torch.nn.grad.conv2d_weight(x, [dy.shape[1], x.shape[1], 3, 3], dy, padding=padding)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0), (5, 3)], ids=str)
@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (64, 51), (130, 33)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(size: tuple[int, int, int], channels: tuple[int, int], padding: tuple[int, int]) -> None:
    n, height, width = size
    x, weight = normal(n, channels[0], height, width), normal(channels[1], channels[0], 3, 3)
    scale, out_scale = 1 + normal(n, channels[0]) / 4, 1 + normal(n, channels[1]) / 4
    y = winograd_conv2d(x, weight, scale, padding, out_scale)
    expected = scaled(F.conv2d(scaled(x.double(), scale), weight.double(), padding=padding), out_scale)
    assert y.shape == expected.shape
    assert relative_error(y, expected) <= LARGEST_ERROR

    dy, dy_scale = normal(*y.shape), 1 + normal(*y.shape[:2]) / 4
    dweight = winograd_conv2d_weight_grad(dy, x, dy_scale, scale, padding)
    expected = weight_gradient(scaled(dy.double(), dy_scale), scaled(x.double(), scale), padding)
    assert dweight.shape == expected.shape
    assert relative_error(dweight, expected) <= LARGEST_ERROR


def test_error_of_many_channels() -> None:
    x, weight = normal(1, 512, 60, 60), normal(512, 512, 3, 3)  # several chunks of tiles
    expected = F.conv2d(x.double(), weight.double())
    y = winograd_conv2d(x, weight, None, (0, 0))
    assert relative_error(y, expected) <= LARGEST_ERROR
    assert ((y - expected).square().mean() / expected.square().mean()).sqrt() <= 2e-6


def test_error_of_many_pixels() -> None:
    x, dy = normal(2, 128, 180, 180), normal(2, 128, 180, 180)  # several chunks of tiles
    expected = weight_gradient(dy.double(), x.double(), (1, 1))
    assert relative_error(winograd_conv2d_weight_grad(dy, x, None, None, (1, 1)), expected) <= LARGEST_ERROR


def test_strides_and_dtypes() -> None:
    x, weight = normal(2, 8, 12, 11).to(memory_format=torch.channels_last), normal(3, 8, 3, 3).transpose(2, 3)
    scale = torch.tensor([[0.5, 2.0, 4.0, -1.0]], dtype=torch.float64).repeat(2, 2)
    expected = F.conv2d(scaled(x, scale), weight, padding=1)
    assert relative_error(winograd_conv2d(x, weight, scale, (1, 1)), expected) <= LARGEST_ERROR
    assert relative_error(winograd_conv2d(x, weight.double(), scale.float(), (1, 1)), expected) <= LARGEST_ERROR


@pytest.mark.parametrize("isa", ["baseline", "x86-64-v3"])
def test_lesser_instruction_sets(isa: str) -> None:
    tests = f"{Path(__file__)}::{test_every_size.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
    done = subprocess.run(command, env={**os.environ, "GANOPS_CPU_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def gradients(x: Tensor, weight: Tensor, styles: Tensor) -> list[Tensor]:
    """The convolution, its gradients, and one of a gradient."""
    inputs = [t.clone().requires_grad_() for t in (x, weight, styles)]
    y = scaled_convolution(*inputs, Geometry(padding=(1, 1)))
    first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    return [y, *first, torch.autograd.grad(first[2].sum(), inputs[0])[0]]


@pytest.mark.parametrize("batch", [1, 2])
def test_convolutions_of_many_channels_and_their_gradients(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = normal(batch, 80, 52, 53), normal(64, 80, 3, 3), normal(batch, 80)
    calls = []
    for function in (winograd_conv2d, winograd_conv2d_weight_grad):

        def counted(*args, function=function):
            calls.append(function)
            return function(*args)

        monkeypatch.setattr(_convolution.winograd, function.__name__, counted)
    actual, expected = gradients(*inputs), gradients(*(t.double() for t in inputs))
    assert calls.count(winograd_conv2d) >= 3  # forward, the input's gradient, and of the second order
    assert calls.count(winograd_conv2d_weight_grad) >= 1
    for a, b in zip(actual, expected, strict=True):
        assert relative_error(a, b) <= 2 * LARGEST_ERROR  # of two convolutions

    calls.clear()
    with ganops.backend("reference"):
        gradients(*inputs)
    gradients(inputs[0][:, : MIN_CHANNELS - 1], inputs[1][:, : MIN_CHANNELS - 1], inputs[2][:, : MIN_CHANNELS - 1])
    gradients(*(t.to(torch.bfloat16) for t in inputs))
    assert not calls


def test_not_a_number_stays_so() -> None:
    x = normal(1, 8, 12, 12)
    x[0, 3, 5, 5] = torch.nan
    y = winograd_conv2d(x, normal(4, 8, 3, 3), None, (1, 1))
    assert y[:, :, 4:7, 4:7].isnan().all()
    assert not y[:, :, :, 9:].isnan().any()


X, WEIGHT, DY, SCALE, OUT_SCALE = normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(2, 4, 5, 5), normal(2, 3), normal(2, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("winograd_conv2d", (X[0], WEIGHT, None, None, 1, 1), "x must be"),
        ("winograd_conv2d", (X.double(), WEIGHT, None, None, 1, 1), "x must be"),
        ("winograd_conv2d", (X, WEIGHT[:, :2], None, None, 1, 1), "weight must be"),
        ("winograd_conv2d", (X, WEIGHT[..., :1], None, None, 1, 1), "weight must be"),
        ("winograd_conv2d", (X, WEIGHT, SCALE[:1], None, 1, 1), "scale must be"),
        ("winograd_conv2d", (X, WEIGHT, None, OUT_SCALE[:, :3], 1, 1), "out_scale must be"),
        ("winograd_conv2d", (X, WEIGHT, None, None, -2, 1), "padding -2"),
        ("winograd_conv2d_weight_grad", (DY, X[0], None, None, 1, 1), "x must be"),
        ("winograd_conv2d_weight_grad", (DY[:, :, :4], X, None, None, 1, 1), "dy must have"),
        ("winograd_conv2d_weight_grad", (DY[:1], X, None, None, 1, 1), "dy must have"),
        ("winograd_conv2d_weight_grad", (DY, X, SCALE, None, 1, 1), "dy_scale must be"),
        ("winograd_conv2d_weight_grad", (DY, X, None, SCALE[:, :2], 1, 1), "x_scale must be"),
    ],
)
def test_shapes_that_do_not_fit(name: str, arguments: tuple[object, ...], message: str) -> None:
    """No kernel reads what is not there, whoever calls the operators."""
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.ganops, name)(*arguments)
