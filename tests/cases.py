"""The cases that every implementation must pass: shapes, filters, tolerances, once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import ganops

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FORMATS = (torch.contiguous_format, torch.channels_last)

# Greatest error of a result, relative to the RMS of the float64 reference: a few roundings of each type.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Case:
    """One call of ganops.<op>: ``shapes`` are its differentiable tensors, ``options`` the rest."""

    op: str
    name: str
    shapes: dict[str, tuple[int, ...]]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    def tensors(
        self, dtype: torch.dtype, device: str = "cpu", memory_format: torch.memory_format = torch.contiguous_format
    ) -> dict[str, Tensor]:
        """Normal values, alike on every device; x in the memory format."""
        generator = torch.Generator().manual_seed(0)
        made = {}
        for name, shape in self.shapes.items():
            value = torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
            if name == "x" and len(shape) == 4:
                value = value.contiguous(memory_format=memory_format)
            made[name] = value.requires_grad_()
        return made

    def run(self, tensors: dict[str, Tensor]) -> Tensor:
        device = tensors["x"].device
        options = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.options.items()}
        function: Callable[..., Tensor] = getattr(ganops, self.op)
        return function(**tensors, **options)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Greatest absolute difference over the RMS of what is expected."""
    if expected.numel() == 0:
        return 0.0
    scale = expected.double().square().mean().sqrt().clamp_min(1e-300)
    return ((actual.double() - expected.double()).abs().max() / scale).item()


def _taps(count: int, seed: int) -> Tensor:
    """A filter without symmetry, so that a wrong flip shows, of unit sum."""
    taps = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    return (taps / taps.sum()).float()


def _full(height: int, width: int, seed: int) -> Tensor:
    return _taps(height * width, seed).reshape(height, width)


BLUR = ganops.setup_filter([1, 3, 3, 1])
UP12, UP24, DOWN12 = _taps(12, 1), _taps(24, 2), _taps(12, 3)
RADIAL12 = _full(12, 12, 4)

BIAS_ACT = [
    Case("bias_act", act, {"x": (2, 5, 7, 6), "b": (5,)}, {"act": act})
    for act in ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish", "gelu")
] + [
    Case("bias_act", "no-bias", {"x": (2, 5, 7, 6)}, {"act": "lrelu"}),
    Case("bias_act", "matrix", {"x": (3, 70), "b": (70,)}, {"act": "lrelu", "alpha": 0.1, "gain": 0.5}),
    Case("bias_act", "vector", {"x": (300,), "b": (300,)}, {"dim": 0, "act": "swish"}),
    Case("bias_act", "last-dim", {"x": (2, 3, 4, 5), "b": (5,)}, {"dim": -1, "act": "lrelu"}),
    Case("bias_act", "first-dim", {"x": (4, 3, 2, 5), "b": (4,)}, {"dim": 0, "act": "gelu"}),
    Case("bias_act", "5d", {"x": (2, 3, 2, 3, 4), "b": (3,)}, {"act": "tanh", "gain": 2.0}),
    Case("bias_act", "negative-slope", {"x": (2, 3, 4, 5), "b": (3,)}, {"act": "lrelu", "alpha": -0.5}),
    Case("bias_act", "zero-gain", {"x": (2, 3, 4, 5), "b": (3,)}, {"act": "sigmoid", "gain": 0.0}),
    Case("bias_act", "long-rows", {"x": (1, 2, 130, 131), "b": (2,)}, {"act": "lrelu"}),
    Case("bias_act", "empty", {"x": (0, 3, 4, 5), "b": (3,)}, {"act": "lrelu"}),
]

UPFIRDN2D = [
    Case("upfirdn2d", "blur", {"x": (2, 3, 17, 18)}, {"f": BLUR, "padding": [2, 1, 2, 1]}),
    Case("upfirdn2d", "upsample", {"x": (2, 3, 8, 9)}, {"f": BLUR, "up": 2, "padding": [2, 1, 2, 1], "gain": 4.0}),
    Case("upfirdn2d", "downsample", {"x": (2, 3, 16, 19)}, {"f": BLUR, "down": 2, "padding": 1}),
    Case("upfirdn2d", "separable", {"x": (1, 2, 20, 33)}, {"f": DOWN12, "padding": [6, 5], "flip_filter": True}),
    Case("upfirdn2d", "separable-wide", {"x": (1, 2, 9, 141)}, {"f": DOWN12, "padding": [6, 5]}),
    Case("upfirdn2d", "separable-up", {"x": (1, 2, 9, 40)}, {"f": UP12, "up": 2, "padding": 5}),
    Case("upfirdn2d", "separable-up4", {"x": (1, 2, 9, 10)}, {"f": UP24, "up": 4, "padding": 11, "gain": 16.0}),
    Case("upfirdn2d", "separable-down", {"x": (1, 2, 30, 41)}, {"f": DOWN12, "down": 2, "padding": 5}),
    Case("upfirdn2d", "separable-down4", {"x": (1, 2, 40, 41)}, {"f": UP24, "down": 4, "padding": 11}),
    Case("upfirdn2d", "radial", {"x": (1, 2, 30, 31)}, {"f": RADIAL12, "down": 2, "padding": 5}),
    Case(
        "upfirdn2d",
        "uneven",
        {"x": (2, 2, 11, 13)},
        {"f": _full(3, 5, 5), "up": [2, 3], "down": [3, 1], "padding": [3, -1, 0, 4], "flip_filter": True},
    ),
    Case("upfirdn2d", "crop", {"x": (2, 2, 11, 13)}, {"f": _taps(4, 6), "padding": [-2, -1, 3, -4]}),
    Case("upfirdn2d", "crop-away-and-pad", {"x": (1, 1, 3, 3)}, {"f": _taps(2, 7), "padding": [-5, 12, 9, -5]}),
    Case("upfirdn2d", "identity", {"x": (2, 3, 5, 6)}, {"f": None, "up": 2, "down": 3, "padding": [1, 2, 0, 1]}),
    Case("upfirdn2d", "one-tap", {"x": (2, 3, 5, 6)}, {"f": torch.tensor([2.0]), "gain": 0.5}),
    Case("upfirdn2d", "one-short-of-a-vector", {"x": (1, 1, 9, 7)}, {"f": BLUR, "padding": [2, 1, 2, 1]}),
    Case("upfirdn2d", "many-channels", {"x": (1, 67, 6, 5)}, {"f": BLUR, "padding": 2}),
    Case("upfirdn2d", "wide", {"x": (1, 1, 3, 1500)}, {"f": DOWN12, "down": [2, 1], "padding": [5, 5, 6, 6]}),
    Case("upfirdn2d", "empty", {"x": (0, 3, 8, 9)}, {"f": BLUR, "up": 2, "padding": 2}),
]

_SG3 = {"gain": 2.0**0.5, "slope": 0.2, "clamp": 256.0}
# Paddings of both parities: what StyleGAN3's layers have, for which there are kernels of their own, and others.
FILTERED_LRELU = [
    Case(
        "filtered_lrelu",
        "up2-down2",
        {"x": (2, 3, 20, 22), "b": (3,)},
        {"fu": UP12, "fd": DOWN12, "up": 2, "down": 2, "padding": [9, 8, 11, 6], **_SG3},
    ),
    Case(
        "filtered_lrelu",
        "up4-down2",
        {"x": (1, 3, 15, 14), "b": (3,)},
        {"fu": UP24, "fd": DOWN12, "up": 4, "down": 2, "padding": [14, 17, 18, 13], **_SG3, "clamp": 1.5},
    ),
    Case(
        "filtered_lrelu",
        "up2-down4",
        {"x": (1, 3, 20, 18), "b": (3,)},
        {"fu": UP12, "fd": UP24, "up": 2, "down": 4, "padding": [18, 17, 16, 19], **_SG3, "flip_filter": True},
    ),
    Case(
        "filtered_lrelu",
        "up4-down4",
        {"x": (1, 2, 11, 12), "b": (2,)},
        {"fu": UP24, "fd": UP24, "up": 4, "down": 4, "padding": 20, **_SG3},
    ),
    Case(
        "filtered_lrelu",
        "up2-radial-down2",
        {"x": (1, 3, 20, 22), "b": (3,)},
        {"fu": UP12, "fd": RADIAL12, "up": 2, "down": 2, "padding": [9, 8, 11, 6], **_SG3},
    ),
    Case(
        "filtered_lrelu",
        "up4-radial-down2",
        {"x": (1, 2, 12, 13), "b": (2,)},
        {"fu": UP24, "fd": RADIAL12, "up": 4, "down": 2, "padding": 18, **_SG3, "flip_filter": True},
    ),
    Case(
        "filtered_lrelu",
        "shifted",
        {"x": (1, 2, 9, 11), "b": (2,)},
        {"fu": UP12, "fd": DOWN12, "up": 2, "down": 2, "padding": [10, 8, 9, 7], **_SG3},
    ),
    Case(
        "filtered_lrelu",
        "radial-up2",
        {"x": (1, 2, 12, 13), "b": (2,)},
        {"fu": RADIAL12, "fd": DOWN12, "up": 2, "down": 2, "padding": 11},
    ),
    Case("filtered_lrelu", "to-rgb", {"x": (2, 3, 9, 8), "b": (3,)}, {"gain": 1.0, "slope": 1.0, "clamp": 256.0}),
    Case(
        "filtered_lrelu",
        "odd",
        {"x": (2, 3, 9, 8), "b": (3,)},
        {"fu": _full(5, 3, 8), "fd": _taps(7, 9), "up": 3, "down": 5, "padding": [7, -1, -2, 9], "clamp": 0.5},
    ),
    Case(
        "filtered_lrelu", "no-bias", {"x": (1, 2, 9, 8)}, {"fu": _taps(4, 1), "up": 2, "padding": [2, 1], "slope": 0.0}
    ),
    Case("filtered_lrelu", "down-only", {"x": (1, 2, 16, 9), "b": (2,)}, {"fd": BLUR, "down": 2, "padding": 1}),
    Case(
        "filtered_lrelu",
        "wide",
        {"x": (1, 1, 6, 700), "b": (1,)},
        {"fu": UP12, "fd": DOWN12, "up": 2, "down": 2, "padding": [9, 8, 11, 6]},
    ),
    Case(
        "filtered_lrelu",
        "empty",
        {"x": (0, 3, 20, 22), "b": (3,)},
        {"fu": UP12, "fd": DOWN12, "up": 2, "down": 2, "padding": 9},
    ),
]


def _modulated(
    name: str, n: int, i: int, o: int, k: int, size: int, noise: tuple[int, ...] = (), **options: Any
) -> Case:
    shapes: dict[str, tuple[int, ...]] = {"x": (n, i, size, size + 1), "weight": (o, i, k, k), "styles": (n, i)}
    gain_shape = options.pop("input_gain_shape", None)
    if gain_shape is not None:
        shapes["input_gain"] = gain_shape
    if noise:
        shapes["noise"] = noise
    if options.pop("with_bias", True):
        shapes["bias"] = (o,)
    return Case("modulated_conv2d", name, shapes, options)


MODULATED_CONV2D = [
    _modulated("3x3", 2, 4, 5, 3, 7, noise=(2, 1, 7, 8), padding=1, act="lrelu", clamp=256.0),
    _modulated("1x1", 2, 4, 5, 1, 7, noise=(7, 8), act="lrelu"),
    _modulated("to-rgb", 2, 6, 3, 1, 7, demodulate=False, clamp=256.0),
    _modulated("up2", 2, 4, 5, 3, 6, noise=(1, 1, 12, 14), up=2, padding=1, resample_filter=BLUR, flip_weight=False),
    _modulated("up2-1x1", 1, 4, 5, 1, 6, up=2, resample_filter=BLUR, act="swish"),
    _modulated("down2", 2, 4, 5, 3, 8, down=2, padding=1, resample_filter=BLUR, act="relu", gain=1.0),
    _modulated("down2-1x1", 1, 4, 5, 1, 8, down=2, resample_filter=DOWN12),
    _modulated("up3-down2", 1, 3, 2, 3, 5, up=3, down=2, padding=[2, 1], resample_filter=_taps(5, 3)),
    _modulated("up2-no-filter", 1, 3, 2, 3, 5, up=2, padding=1),
    _modulated("uneven-padding", 1, 3, 2, 3, 6, padding=[2, -1, 0, 1]),
    _modulated("stylegan3", 3, 4, 5, 3, 7, padding=2, prenormalize="rms", input_gain_shape=(), with_bias=False),
    _modulated("gain-per-channel", 2, 4, 5, 1, 7, prenormalize="rms", input_gain_shape=(4,)),
    _modulated("gain-per-sample", 2, 4, 5, 3, 7, padding=1, prenormalize="max", input_gain_shape=(2, 4), act="gelu"),
    _modulated("empty", 0, 4, 5, 3, 7, padding=1, act="lrelu"),
]


def _adaptive(name: str, n: int, i: int, o: int, k: int, size: int, filters: int, **options: Any) -> Case:
    plain = _modulated(name, n, i, o, k, size, **options)
    shapes = {**plain.shapes, "weight": (filters, *plain.shapes["weight"]), "logits": (n, filters)}
    return Case("adaptive_modulated_conv2d", name, shapes, plain.options)


ADAPTIVE_MODULATED_CONV2D = [
    _adaptive("3x3", 2, 4, 5, 3, 7, 3, noise=(2, 1, 7, 8), padding=1, act="lrelu", clamp=256.0),
    _adaptive("1x1", 3, 4, 5, 1, 7, 2, noise=(7, 8), act="lrelu"),
    _adaptive("one-sample", 1, 4, 5, 3, 7, 4, padding=1, act="lrelu"),
    _adaptive("one-filter", 2, 4, 5, 3, 7, 1, padding=1),
    _adaptive("to-rgb", 2, 6, 3, 1, 7, 2, demodulate=False, clamp=256.0),
    _adaptive("up2", 2, 4, 5, 3, 6, 2, noise=(1, 1, 12, 14), up=2, padding=1, resample_filter=BLUR, flip_weight=False),
    _adaptive("down2", 2, 4, 5, 3, 8, 2, down=2, padding=1, resample_filter=BLUR, act="relu", gain=1.0),
    _adaptive("rms", 3, 4, 5, 3, 7, 2, padding=2, prenormalize="rms", input_gain_shape=(), with_bias=False),
    _adaptive("max", 2, 4, 5, 3, 7, 2, padding=1, prenormalize="max", input_gain_shape=(2, 4), act="gelu"),
    _adaptive("empty", 0, 4, 5, 3, 7, 2, padding=1, act="lrelu"),
]


def _filtered_lrelu_on_network(
    name: str, n: int, c: int, size: int, out: int, up: int, down: int, radial: bool = False
) -> Case:
    """A layer of StyleGAN3: 6 taps a sample, so padded that [size, size] becomes [out, out] with the centre kept."""
    fu, fd = {2: UP12, 4: UP24}[up], RADIAL12 if radial else DOWN12
    total = (out - 1) * down + 1 - size * up + len(fu) + len(fd) - 2
    before = (total + up) // 2
    options = {"fu": fu, "fd": fd, "up": up, "down": down, "padding": [before, total - before] * 2, **_SG3}
    return Case("filtered_lrelu", name, {"x": (n, c, size, size), "b": (c,)}, options)


# Layers whose convolution a kernel of ours does: channels that fill no tile, images smaller and larger than one, every
# resampling, and both ways of either normalisation.
SCALED_CONV2D = [
    _modulated("3x3", 1, 51, 40, 3, 9, noise=(9, 10), padding=1, act="lrelu", clamp=1.0),
    _modulated("3x3-wide", 1, 40, 16, 3, 24, noise=(1, 1, 24, 25), padding=1, act="lrelu"),
    _modulated("3x3-tile", 2, 16, 24, 3, 15, noise=(2, 1, 15, 16), padding=1, act="lrelu", gain=1.0),
    _modulated("3x3-batch", 5, 16, 81, 3, 4, padding=1, act="relu", prenormalize="max"),
    _modulated("1x1", 5, 81, 51, 1, 7, noise=(7, 8), act="lrelu"),
    _modulated("to-rgb", 1, 64, 3, 1, 16, demodulate=False, clamp=1.0),
    _modulated("from-rgb", 2, 3, 70, 1, 9),
    _modulated("up2", 2, 24, 40, 3, 6, noise=(12, 14), up=2, padding=1, resample_filter=BLUR, flip_weight=False),
    _modulated("up2-1x1", 1, 8, 16, 1, 6, up=2, resample_filter=BLUR, act="lrelu"),
    _modulated("down2", 2, 24, 40, 3, 15, down=2, padding=1, resample_filter=BLUR, act="lrelu"),
    _modulated("uneven-padding", 1, 8, 16, 3, 6, padding=[2, -1, 0, 1]),
    _modulated("stylegan3", 3, 51, 81, 3, 8, padding=2, prenormalize="rms", input_gain_shape=(), act="lrelu"),
    _modulated("5x5", 1, 8, 12, 5, 9, padding=2, prenormalize="rms", input_gain_shape=(1, 8)),
    _modulated("3x3-whole-sectors", 2, 19, 40, 3, 31, padding=1),
]

CASES = BIAS_ACT + UPFIRDN2D + FILTERED_LRELU + MODULATED_CONV2D + ADAPTIVE_MODULATED_CONV2D
SMALL = [case for case in CASES if case.name not in ("long-rows", "wide", "empty", "many-channels")]
