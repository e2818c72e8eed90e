"""Bad arguments: the error names the argument, before any work is done, whatever the backend."""

from typing import Any

import pytest
import torch

import ganops

X = torch.zeros(2, 3, 8, 8)
W, S, F = torch.zeros(4, 3, 3, 3), torch.zeros(2, 3), torch.ones(4)
BANK = {"x": X, "weight": torch.zeros(5, 4, 3, 3, 3), "styles": S, "logits": torch.zeros(2, 5)}

BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("bias_act", {"x": "image"}, TypeError, "x must be a torch.Tensor, got str"),
    ("bias_act", {"x": X.int()}, TypeError, "x must have dtype .*float32.*, got int32"),
    ("bias_act", {"x": X.to_sparse()}, TypeError, "x must be a dense tensor"),
    ("bias_act", {"x": torch.tensor(1.0)}, ValueError, "x must have at least one dimension"),
    ("bias_act", {"x": X, "b": torch.zeros(4)}, ValueError, r"b must have shape \[3\] .*got \[4\]"),
    ("bias_act", {"x": X, "b": torch.zeros(3).double()}, TypeError, "b must have x's dtype float32, got float64"),
    ("bias_act", {"x": X, "b": torch.zeros(3, device="meta")}, ValueError, "b must be on x's device cpu, got meta"),
    ("bias_act", {"x": X, "dim": 4}, ValueError, r"dim must be in \[-4, 3\] .*got 4"),
    ("bias_act", {"x": X, "dim": 1.5}, TypeError, "dim must be an int, got float"),
    ("bias_act", {"x": X, "act": "mish"}, ValueError, "act must be one of linear, .*got 'mish'"),
    ("bias_act", {"x": X, "clamp": -1.0}, ValueError, "clamp must be None or at least 0, got -1"),
    ("bias_act", {"x": X, "gain": float("nan")}, ValueError, "gain must be finite, got nan"),
    ("bias_act", {"x": X, "alpha": "0.2"}, TypeError, "alpha must be a number, got str"),
    ("upfirdn2d", {"x": X[0], "f": F}, ValueError, r"x must be \[N, C, H, W\], got shape \[3, 8, 8\]"),
    ("upfirdn2d", {"x": X[:, :0], "f": F}, ValueError, "x must have at least one channel"),
    ("upfirdn2d", {"x": X, "f": [1, 3, 3, 1]}, TypeError, "f must be a torch.Tensor, got list"),
    ("upfirdn2d", {"x": X, "f": F.int()}, TypeError, "f must have dtype float32, float64, got int32"),
    ("upfirdn2d", {"x": X, "f": torch.zeros(1, 2, 3)}, ValueError, r"f must be None, \[taps\]"),
    ("upfirdn2d", {"x": X, "f": torch.zeros(0)}, ValueError, r"f must be None, \[taps\]"),
    ("upfirdn2d", {"x": X, "f": F.clone().requires_grad_()}, ValueError, "f must not require a gradient"),
    ("upfirdn2d", {"x": X, "f": F.to("meta")}, ValueError, "f must be on x's device"),
    ("upfirdn2d", {"x": X, "f": F, "up": 0}, ValueError, "up must be at least 1, got 0"),
    ("upfirdn2d", {"x": X, "f": F, "up": [1, 2, 3]}, ValueError, "up must be an int or a list of 2 ints"),
    ("upfirdn2d", {"x": X, "f": F, "down": [2, 0]}, ValueError, r"down\[1\] must be at least 1, got 0"),
    ("upfirdn2d", {"x": X, "f": F, "down": 1.0}, TypeError, "down must be an int, got float"),
    ("upfirdn2d", {"x": X, "f": F, "padding": [1, 2, 3]}, ValueError, "padding must be an int or a list of 2 or 4"),
    ("upfirdn2d", {"x": X, "f": F, "flip_filter": 1}, TypeError, "flip_filter must be a bool, got int"),
    ("upfirdn2d", {"x": X, "f": torch.ones(12)}, ValueError, r"x of shape .* gives an output of -3x-3"),
    ("filter2d", {"x": X, "f": 3}, TypeError, "f must be a torch.Tensor"),
    ("upsample2d", {"x": X, "f": F, "up": -1}, ValueError, "up must be at least 1, got -1"),
    ("downsample2d", {"x": X, "f": F, "down": True}, TypeError, "down must be an int, got bool"),
    ("filtered_lrelu", {"x": X, "fu": [1]}, TypeError, "fu must be a torch.Tensor"),
    ("filtered_lrelu", {"x": X, "fd": F.half()}, TypeError, "fd must have dtype"),
    ("filtered_lrelu", {"x": X, "b": torch.zeros(2)}, ValueError, r"b must have shape \[3\]"),
    ("filtered_lrelu", {"x": X, "up": 0}, ValueError, "up must be at least 1"),
    ("filtered_lrelu", {"x": X, "down": "2"}, TypeError, "down must be an int, got str"),
    ("filtered_lrelu", {"x": X, "padding": -4}, ValueError, "an upsampled image of 0x0"),
    ("filtered_lrelu", {"x": X, "fd": torch.ones(9)}, ValueError, "an output of 0x0"),
    ("filtered_lrelu", {"x": X, "slope": None}, TypeError, "slope must be a number, got NoneType"),
    ("filtered_lrelu", {"x": X, "clamp": "1"}, TypeError, "clamp must be a number, got str"),
    ("modulated_conv2d", {"x": X, "weight": W[0], "styles": S}, ValueError, r"weight must have shape \[O, 3, kh, kw\]"),
    ("modulated_conv2d", {"x": X, "weight": W[:, :2], "styles": S}, ValueError, r"weight must .* got \[4, 2, 3, 3\]"),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S[:1]}, ValueError, r"styles must have shape \[2, 3\]"),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": None}, TypeError, "styles must be a torch.Tensor"),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S, "demodulate": 1}, TypeError, "demodulate must be a bool"),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S, "prenormalize": "l2"}, ValueError, "prenormalize must be"),
    (
        "modulated_conv2d",
        {"x": X, "weight": W, "styles": S, "noise": X},
        ValueError,
        r"noise must have shape \[2, 1, 6, 6",
    ),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S, "bias": S[0]}, ValueError, r"bias must have shape \[4\]"),
    (
        "modulated_conv2d",
        {"x": X, "weight": W, "styles": S, "input_gain": F},
        ValueError,
        "input_gain must be a number",
    ),
    (
        "modulated_conv2d",
        {"x": X, "weight": W, "styles": S, "resample_filter": 1},
        TypeError,
        "resample_filter must be",
    ),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S, "up": 1.0}, TypeError, "up must be an int"),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S, "act": None}, ValueError, "act must be one of"),
    ("modulated_conv2d", {"x": X, "weight": W, "styles": S, "padding": -3}, ValueError, "gives an output of 0x0"),
    ("adaptive_modulated_conv2d", {**BANK, "weight": W}, ValueError, r"weight must have shape \[K, O, 3, kh, kw\]"),
    ("adaptive_modulated_conv2d", {**BANK, "weight": [W]}, TypeError, "weight must be a torch.Tensor, got list"),
    ("adaptive_modulated_conv2d", {**BANK, "styles": S[0]}, ValueError, r"styles must have shape \[2, 3\] .*got \[3\]"),
    (
        "adaptive_modulated_conv2d",
        {**BANK, "logits": S},
        ValueError,
        r"logits must have shape \[2, 5\] \(x's samples, f",
    ),
    ("adaptive_modulated_conv2d", {**BANK, "logits": S.int()}, TypeError, "logits must have dtype"),
    (
        "adaptive_modulated_conv2d",
        {**BANK, "logits": torch.zeros(2, 5, device="meta")},
        ValueError,
        "logits must be on",
    ),
    ("adaptive_modulated_conv2d", {**BANK, "bias": S[0]}, ValueError, r"bias must have shape \[4\]"),
    ("adaptive_modulated_conv2d", {**BANK, "prenormalize": None}, ValueError, "prenormalize must be"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "text"), BAD, ids=[f"{op}-{text[:30]}" for op, _, _, text in BAD])
def test_bad_argument(op: str, arguments: dict[str, Any], error: type[Exception], text: str, forced: str) -> None:
    defaults = {"f": F} if op in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d") else {}
    with pytest.raises(error, match=text):
        getattr(ganops, op)(**{**defaults, **arguments})
