"""Calls of the operators past their public functions: what does not fit is an error, and no kernel reads it."""

from typing import Any

import pytest
import torch
from simt_ops import NAMESPACES

import ganops
from ganops.ops._library import OPERATORS

X, KERNEL, SQUARE = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3), torch.ones(4, 4)
PER_CHANNEL, PER_OUTPUT, B = torch.ones(2, 3), torch.ones(2, 4), torch.ones(3)
NOISE = torch.ones(2, 1, 8, 8)
CODES = torch.zeros(2, 3, 20, 5, dtype=torch.uint8)
LRELU = {"act": "lrelu", "alpha": 0.2, "gain": 1.0, "clamp": -1.0}
FILTERED = {"up": 2, "down": 2, "padding": [3, 3, 3, 3], "gain": 1.0, "slope": 0.2, "flip_filter": False}
EVEN, ODD = torch.ones(2, 3, 5, 5), torch.ones(2, 3, 4, 4)

# A call of each operator that fits.
CALLS: dict[str, dict[str, Any]] = {
    "bias_act": {"x": X, "b": B, "dim": 1, **LRELU},
    "bias_act_grad": {"dy": X, "kept": X, "b": B, "dim": 1, **LRELU, "order": 1},
    "upfirdn2d": {
        **{"x": X, "f": SQUARE, "up": [2, 2], "down": [1, 1], "padding": [2, 1, 2, 1]},
        **{"flip_filter": False, "gain": 1.0},
    },
    "filtered_lrelu": {"x": X, "fu": SQUARE, "fd": B, "b": B, **FILTERED, "clamp": -1.0, "save_codes": True},
    "filtered_lrelu_grad": {
        **{"x": X, "fu": SQUARE, "fd": B, "codes": CODES, "codes_width": 19, "offset": [0, 0]},
        **FILTERED,
    },
    "modulated_conv2d_epilogue": {"x": X, "scale": PER_CHANNEL, "noise": NOISE, "b": B, **LRELU},
    "modulated_conv2d_epilogue_": {"x": X.clone(), "scale": PER_CHANNEL, "noise": NOISE, "b": B, **LRELU},
    "modulated_conv2d_phases": {
        **{"even_even": EVEN, "even_odd": EVEN[..., :4], "odd_even": EVEN[:, :, :4], "odd_odd": ODD, "f": SQUARE},
        **{"scale": PER_CHANNEL, "noise": NOISE, "b": B, "padding": [1, 1, 1, 1], **LRELU},
    },
    "scaled_conv2d": {
        **{"x": X, "weight": KERNEL, "x_scale": PER_CHANNEL, "y_scale": PER_OUTPUT, "noise": NOISE},
        **{"b": torch.ones(4), "up": 1, "down": 1, "padding": [1, 1, 1, 1], **LRELU},
    },
}

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("bias_act", {"b": B[:2]}, r"b must be \[3\]"),
    ("bias_act", {"b": B.double()}, "b must have x's dtype"),
    ("bias_act", {"b": PER_CHANNEL}, r"b must be \[3\]"),
    ("bias_act", {"dim": 4}, "dim must be"),
    ("bias_act", {"dim": -1}, "dim must be"),
    ("bias_act", {"x": torch.tensor(1.0)}, "dim must be"),
    ("bias_act", {"x": X.int()}, "dtype"),
    ("bias_act_grad", {"b": B[:2]}, r"b must be \[3\]"),
    ("bias_act_grad", {"dy": X[:1]}, "dy must have the shape"),
    ("bias_act_grad", {"kept": X[:1]}, "dy must have the shape"),
    ("bias_act_grad", {"kept": X[:, :, :4]}, "dy must have the shape"),
    ("bias_act_grad", {"kept": X[..., None]}, "dy must have the shape"),
    ("bias_act_grad", {"kept": X.half()}, "dy must have the shape and dtype"),
    ("bias_act_grad", {"order": 0}, "order must be"),
    ("bias_act_grad", {"order": 3}, "order must be"),
    ("bias_act_grad", {"order": 2**32 + 1}, "order must be"),
    ("upfirdn2d", {"x": X[0]}, "x must be"),
    ("upfirdn2d", {"x": X[:, :, :0]}, "x must be"),
    ("upfirdn2d", {"f": torch.ones(())}, "f must be"),
    ("upfirdn2d", {"f": torch.ones(0)}, "f must be"),
    ("upfirdn2d", {"f": torch.ones(1, 2, 2)}, "f must be"),
    ("upfirdn2d", {"up": [2]}, "up and down must be"),
    ("upfirdn2d", {"down": [1, 0]}, "up and down must be"),
    ("upfirdn2d", {"padding": [2, 1, 2]}, "padding must be"),
    ("upfirdn2d", {"padding": [-20, 1, 2, 1]}, "an output of"),
    ("filtered_lrelu", {"x": X[0]}, "x must be"),
    ("filtered_lrelu", {"x": X[..., :0]}, "x must be"),
    ("filtered_lrelu", {"fu": torch.ones(0)}, "fu must be"),
    ("filtered_lrelu", {"fd": torch.ones(1, 2, 2)}, "fd must be"),
    ("filtered_lrelu", {"b": B[:2]}, r"b must be \[3\]"),
    ("filtered_lrelu", {"up": 0}, "up and down must be"),
    ("filtered_lrelu", {"down": 0}, "up and down must be"),
    ("filtered_lrelu", {"padding": [3, 3]}, "padding must be"),
    ("filtered_lrelu", {"padding": [-20, 0, 0, 0]}, "leave no output"),
    ("filtered_lrelu_grad", {"x": X[0]}, "x must be"),
    ("filtered_lrelu_grad", {"fu": torch.ones(0)}, "fu must be"),
    ("filtered_lrelu_grad", {"fd": torch.ones(1, 2, 2)}, "fd must be"),
    ("filtered_lrelu_grad", {"codes": CODES[:1]}, "codes must be"),
    ("filtered_lrelu_grad", {"codes": CODES[:, :2]}, "codes must be"),
    ("filtered_lrelu_grad", {"codes": CODES[0]}, "codes must be"),
    ("filtered_lrelu_grad", {"codes": CODES.float()}, "codes must be"),
    ("filtered_lrelu_grad", {"codes_width": 21}, "codes must be"),
    ("filtered_lrelu_grad", {"codes": CODES[..., :0], "codes_width": -3}, "codes must be"),
    ("filtered_lrelu_grad", {"offset": [0]}, "offset must be"),
    ("filtered_lrelu_grad", {"padding": [3]}, "padding must be"),
    ("modulated_conv2d_epilogue", {"x": X[0]}, "x must be"),
    ("modulated_conv2d_epilogue", {"scale": PER_CHANNEL[:1]}, r"scale must be \[2, 3\]"),
    ("modulated_conv2d_epilogue", {"scale": PER_CHANNEL[:, :2]}, r"scale must be \[2, 3\]"),
    ("modulated_conv2d_epilogue", {"scale": B}, r"scale must be \[2, 3\]"),
    ("modulated_conv2d_epilogue", {"noise": NOISE[:, :, :4]}, r"noise must be \[2, 1, 8, 8\]"),
    ("modulated_conv2d_epilogue", {"noise": NOISE[:1, ..., :4]}, r"noise must be \[1, 1, 8, 8\]"),
    ("modulated_conv2d_epilogue", {"noise": NOISE.repeat(2, 1, 1, 1)}, r"noise must be \[2, 1, 8, 8\]"),
    ("modulated_conv2d_epilogue", {"noise": torch.ones(())}, "noise must be"),
    ("modulated_conv2d_epilogue", {"b": B[:2]}, r"b must be \[3\]"),
    ("modulated_conv2d_epilogue_", {"x": X[0]}, "x must be"),
    ("modulated_conv2d_epilogue_", {"scale": PER_OUTPUT}, r"scale must be \[2, 3\]"),
    ("modulated_conv2d_epilogue_", {"noise": NOISE[..., :4]}, r"noise must be \[2, 1, 8, 8\]"),
    ("modulated_conv2d_epilogue_", {"b": B[:2]}, r"b must be \[3\]"),
    ("modulated_conv2d_phases", {"even_even": EVEN[0]}, "even_even must be"),
    ("modulated_conv2d_phases", {"even_even": EVEN[:, :, :4]}, r"even_odd must be \[2, 3, 4, 4\]"),
    ("modulated_conv2d_phases", {"even_even": EVEN[:, :2]}, r"even_odd must be \[2, 2, 5, 4\]"),
    ("modulated_conv2d_phases", {"even_odd": EVEN[..., :3]}, r"even_odd must be \[2, 3, 5, 4\]"),
    ("modulated_conv2d_phases", {"even_odd": EVEN[..., :4].double()}, "phases must have one dtype"),
    ("modulated_conv2d_phases", {"odd_even": EVEN[:1, :, :4]}, r"odd_even must be \[2, 3, 4, 5\]"),
    ("modulated_conv2d_phases", {"odd_odd": ODD[:, :, :1]}, r"even_even must be \[2, 3, 3, 5\]"),
    ("modulated_conv2d_phases", {"odd_odd": ODD[0]}, "odd_odd must be"),
    ("modulated_conv2d_phases", {"f": SQUARE[0]}, "f must be"),
    ("modulated_conv2d_phases", {"f": SQUARE[:0]}, "f must be"),
    ("modulated_conv2d_phases", {"scale": PER_CHANNEL[:1]}, r"scale must be \[2, 3\]"),
    ("modulated_conv2d_phases", {"noise": NOISE[..., :4]}, r"noise must be \[2, 1, 8, 8\]"),
    ("modulated_conv2d_phases", {"b": B[:2]}, r"b must be \[3\]"),
    ("modulated_conv2d_phases", {"padding": [1, 1, 1]}, "padding must be"),
    ("modulated_conv2d_phases", {"padding": [-9, 0, 0, 0]}, "an output of"),
    ("scaled_conv2d", {"x": X[0]}, "x must be"),
    ("scaled_conv2d", {"weight": KERNEL[:, :2]}, "weight must be"),
    ("scaled_conv2d", {"weight": KERNEL[..., :0]}, "weight must be"),
    ("scaled_conv2d", {"x_scale": PER_OUTPUT}, r"x_scale must be \[2, 3\]"),
    ("scaled_conv2d", {"y_scale": PER_CHANNEL}, r"y_scale must be \[2, 4\]"),
    ("scaled_conv2d", {"noise": NOISE[:, :, :4]}, r"noise must be \[2, 1, 8, 8\]"),
    ("scaled_conv2d", {"b": B}, r"b must be \[4\]"),
    ("scaled_conv2d", {"up": 0}, "up and down must be"),
    ("scaled_conv2d", {"padding": [1, 1]}, "padding must be"),
    ("scaled_conv2d", {"padding": [-9, 0, 0, 0]}, "an output of"),
]
ON_CPU_ALONE, ON_GPU_ALONE = ("modulated_conv2d_epilogue_", "modulated_conv2d_phases"), ("scaled_conv2d",)


def kernels_of(op: str) -> list[str]:
    """The backends with a kernel of their own for this operator."""
    on_cpu = op not in ON_GPU_ALONE and ganops.backends()["cpu"] == "available"
    return ["cpu"] * on_cpu + ["simt"] * (op not in ON_CPU_ALONE)


def call(impl: str, op: str, arguments: dict[str, Any]) -> Any:
    return getattr(getattr(torch.ops, NAMESPACES.get(impl, "ganops")), op)(**arguments)


@pytest.mark.emulated
@pytest.mark.parametrize(("op", "impl"), [(op, impl) for op in CALLS for impl in kernels_of(op)])
def test_calls_that_fit(op: str, impl: str) -> None:
    call(impl, op, CALLS[op])


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("op", "change", "message", "impl"), [(*bad, impl) for bad in BAD for impl in kernels_of(bad[0])], ids=str
)
def test_calls_that_do_not_fit(op: str, change: dict[str, Any], message: str, impl: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        call(impl, op, {**CALLS[op], **change})


def test_every_tensor_and_list_is_tried() -> None:
    """But those of the operators that have files of tests of their own."""
    schemas = {operator.name: getattr(torch.ops.ganops, operator.name).default._schema for operator in OPERATORS}
    schemas |= {name: getattr(torch.ops.ganops, name).default._schema for name in ON_CPU_ALONE}
    wanted = {(op, a.name) for op, schema in schemas.items() for a in schema.arguments if holds_tensor_or_list(a)}
    assert wanted <= {(op, name) for op, change, _ in BAD for name in change}


def holds_tensor_or_list(argument: Any) -> bool:
    return any(word in str(argument.type) for word in ("Tensor", "List"))
