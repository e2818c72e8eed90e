"""One call of an operator: its shapes and options, the work it cannot avoid, and how to run it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

OPERATORS = ("bias_act", "upfirdn2d", "filtered_lrelu", "modulated_conv2d", "conv2d_resample")
# Tensors that are options: a filter's values decide how it is computed, so they are kept.
FILTERS = ("f", "fu", "fd", "resample_filter")
ACTIVATION_FLOPS = 4  # a sample: add the bias, slope, gain, clamp


def operator(name: str) -> Callable[..., Tensor]:
    """The public function of this name."""
    function: Callable[..., Tensor] = getattr(importlib.import_module(f"ganops.ops.{name}"), name)
    return function


@dataclass(frozen=True)
class Call:
    """A call of ganops.<op>: ``shapes`` are its tensors with gradients, ``options`` the rest, filters among it."""

    op: str
    layer: str
    shapes: dict[str, tuple[int, ...]]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.layer} {self.op}"

    @property
    def kind(self) -> str:
        """What distinguishes it from other calls of the operator, in words: "up 2, down 2, 12 and 12 taps"."""
        factors = {name: pair_of(self.options.get(name, 1)) for name in ("up", "down")}
        words = [f"{name} {x}" if x == y else f"{name} {x}x{y}" for name, (x, y) in factors.items() if (x, y) != (1, 1)]
        resamples = bool(words)
        if self.weight:
            words.insert(0, "x".join(map(str, self.weight[2:])))
        taps = [f for name in FILTERS if (f := self.options.get(name)) is not None]
        if taps and (resamples or not self.weight):
            words.append(" and ".join("x".join(map(str, f.shape)) for f in taps) + " taps")
        return ", ".join(words) or str(self.options.get("act", "linear"))

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of a convolution's weight, () for other operators."""
        return self.shapes.get("weight") or self.shapes.get("w") or ()

    @property
    def key(self) -> str:
        """The same for calls that do the same work on the same shapes."""
        options = {name: _plain(value) for name, value in sorted(self.options.items())}
        return repr((self.op, sorted(self.shapes.items()), options))

    def tensors(self, dtype: torch.dtype, device: str = "cpu", requires_grad: bool = False) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        made = {}
        for name, shape in self.shapes.items():
            value = torch.randn(shape, generator=generator).to(device, dtype)
            made[name] = value.requires_grad_(requires_grad)
        return made

    def run(self, tensors: dict[str, Tensor]) -> Tensor:
        return operator(self.op)(**tensors, **self.options_beside(tensors["x"]))

    def options_beside(self, x: Tensor) -> dict[str, Any]:
        """The options, with filters on x's device."""
        return {
            name: value.to(x.device) if isinstance(value, Tensor) else value for name, value in self.options.items()
        }

    def output_shape(self) -> tuple[int, ...]:
        return tuple(self.run({name: torch.empty(shape, device="meta") for name, shape in self.shapes.items()}).shape)

    def elements(self) -> int:
        """Every input and output, once."""
        return sum(map(math.prod, self.shapes.values())) + math.prod(self.output_shape())

    def flops(self) -> int:
        """The fewest known: none by an inserted zero, none beyond what an output needs, separable filters as such."""
        out = self.output_shape()
        return self.product_flops() + _FLOPS[self.op](self, out)

    def product_flops(self) -> int:
        """Those of a convolution over channels, which is torch's. Upsampling is a transposed convolution."""
        if not self.weight:
            return 0
        n, _, *size = self.shapes["x"]
        samples = math.prod(size) if self.options.get("up", 1) > 1 else math.prod(self.output_shape()[2:])
        return 2 * n * samples * math.prod(self.weight)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def pair_of(value: Any) -> tuple[int, int]:
    """A factor for both axes, or one each, as (x, y)."""
    x, y = (value, value) if isinstance(value, int) else value
    return int(x), int(y)


def fir_flops(f: Tensor | None, size: tuple[int, ...], out: tuple[int, ...], up: Any = 1) -> int:
    """Multiplications and additions that make a plane of size ``out`` = (height, width) from one of ``size``."""
    if f is None:
        return 0
    up_x, up_y = pair_of(up)
    taps_x, taps_y = math.ceil(f.shape[-1] / up_x), math.ceil(f.shape[0] / up_y)
    if f.ndim == 2:
        return 2 * out[0] * out[1] * taps_x * taps_y
    rows_first = size[0] * out[1] * taps_x + out[0] * out[1] * taps_y
    columns_first = out[0] * size[1] * taps_y + out[0] * out[1] * taps_x
    return 2 * min(rows_first, columns_first)


def _bias_act(call: Call, out: tuple[int, ...]) -> int:
    return ACTIVATION_FLOPS * math.prod(out)


def _upfirdn2d(call: Call, out: tuple[int, ...]) -> int:
    x, up = call.shapes["x"], call.options.get("up", 1)
    return x[0] * x[1] * fir_flops(call.options.get("f"), x[2:], out[2:], up)


def _filtered_lrelu(call: Call, out: tuple[int, ...]) -> int:
    x, fu, fd = call.shapes["x"], call.options.get("fu"), call.options.get("fd")
    down = call.options.get("down", 1)
    taps = (1, 1) if fd is None else (fd.shape[0], fd.shape[-1])
    middle = tuple((n - 1) * down + k for n, k in zip(out[2:], taps, strict=True))  # what the leaky ReLU works on
    plane = fir_flops(fu, x[2:], middle, call.options.get("up", 1)) + ACTIVATION_FLOPS * math.prod(middle)
    return int(x[0] * x[1] * (plane + fir_flops(fd, middle, out[2:])))


def _conv2d_resample(call: Call, out: tuple[int, ...]) -> int:
    """Of its filter, beside a transposed or strided convolution. A pointwise one runs where the image is small."""
    x, up = call.shapes["x"], call.options.get("up", 1)
    f = call.options.get("resample_filter", call.options.get("f"))
    is_pointwise = call.weight[2:] == (1, 1)
    if up > 1:
        return x[0] * out[1] * fir_flops(f, x[2:] if is_pointwise else out[2:], out[2:], up if is_pointwise else 1)
    if call.options.get("down", 1) > 1:
        return x[0] * x[1] * fir_flops(f, x[2:], out[2:] if is_pointwise else x[2:])
    return 0


def _modulated_conv2d(call: Call, out: tuple[int, ...]) -> int:
    return _conv2d_resample(call, out) + ACTIVATION_FLOPS * math.prod(out)


_FLOPS: dict[str, Callable[[Call, tuple[int, ...]], int]] = {
    "bias_act": _bias_act,
    "upfirdn2d": _upfirdn2d,
    "filtered_lrelu": _filtered_lrelu,
    "modulated_conv2d": _modulated_conv2d,
    "conv2d_resample": _conv2d_resample,
}
