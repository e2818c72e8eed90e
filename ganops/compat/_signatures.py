"""Recognises operators in a codebase's source by their names and parameters. Nothing of it is executed.

What is looked for is what the replacements define: their own signatures are the rule.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# What may replace a module of this name, tried in this order, and the function that tells such a module.
MODULES: dict[str, tuple[str, ...]] = {
    "bias_act": ("nvlabs.bias_act", "mmcv.bias_act"),
    "conv2d_gradfix": ("nvlabs.conv2d_gradfix",),
    "conv2d_resample": ("nvlabs.conv2d_resample",),
    "custom_ops": ("nvlabs.custom_ops",),
    "filtered_lrelu": ("nvlabs.filtered_lrelu", "mmcv.filtered_lrelu"),
    "fma": ("nvlabs.fma",),
    "fused_act": ("rosinality.fused_act", "rosinality.fused_act_biased"),
    "fused_bias_leakyrelu": ("mmcv.fused_bias_leakyrelu",),
    "grid_sample_gradfix": ("nvlabs.grid_sample_gradfix",),
    "upfirdn2d": ("nvlabs.upfirdn2d", "rosinality.upfirdn2d", "mmcv.upfirdn2d"),
}
TELLTALES = {
    "conv2d_gradfix": "no_weight_gradients",
    "custom_ops": "get_plugin",
    "fused_act": "fused_leaky_relu",
    "grid_sample_gradfix": "grid_sample",
}
# What may replace a function of this name in a module of any other name.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "bias_act": MODULES["bias_act"],
    "conv2d_resample": MODULES["conv2d_resample"],
    "filtered_lrelu": MODULES["filtered_lrelu"],
    "fused_bias_leakyrelu": MODULES["fused_bias_leakyrelu"],
    "fused_leaky_relu": MODULES["fused_act"],
    "modulated_conv2d": ("nvlabs.networks_stylegan2", "nvlabs.networks_stylegan3"),
    "upfirdn2d": MODULES["upfirdn2d"],
}

UNKNOWN = object()  # a default that only running the code would tell
OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Pow: operator.pow,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LARGEST_OPERAND = 100
WITHOUT_EFFECT = ("impl", "use_custom_op", "device")  # parameters whose default changes no number


@dataclass(frozen=True)
class Signature:
    """The parameters that may be given by position, their defaults, and whether others are taken."""

    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    takes_more: bool = False

    def misfit(self, ours: "Signature") -> str | None:
        """What of this signature ours does not serve; None if it serves every call."""
        if self.names != ours.names[: len(self.names)] or self.takes_more > ours.takes_more:
            return f"its parameters ({', '.join(self.names)}{', ...' if self.takes_more else ''})"
        for name, value in self.defaults.items():
            default = ours.defaults.get(name, UNKNOWN)
            if name not in ours.defaults or not (name in WITHOUT_EFFECT or _same(value, default)):
                return f"its default {name}={value!r}"
        return None


@dataclass(frozen=True)
class Match:
    """The replacement, as in "nvlabs.bias_act", or why there is none."""

    replacement: str | None
    reason: str = ""


# rosinality's layer and its descendants'; what it needs of an instance is checked when it runs.
MODULATED_CONV2D = {
    "ModulatedConv2d.__init__": Signature(
        (
            "in_channel",
            "out_channel",
            "kernel_size",
            "style_dim",
            "demodulate",
            "upsample",
            "downsample",
            "blur_kernel",
            "fused",
        ),
        {"demodulate": True, "upsample": False, "downsample": False, "blur_kernel": UNKNOWN, "fused": True},
    ),
    "ModulatedConv2d.forward": Signature(("input", "style"), {}),
}


def match_module(stem: str, source: str) -> Match | None:
    """What replaces a module of this last name; None if it is no module of this kind."""
    defined = definitions(source)
    if TELLTALES.get(stem, stem) not in defined:
        return None
    return _first_fit(defined, MODULES[stem], None)


def match_functions(source: str) -> dict[str, Match]:
    """What replaces the functions that a module defines among others; its name tells nothing."""
    defined = definitions(source)
    return {
        name: _first_fit({name: defined[name]}, candidates, name)
        for name, candidates in FUNCTIONS.items()
        if name in defined
    }


def has_modulated_conv2d_class(source: str) -> bool:
    defined = definitions(source)
    return all(name in defined and not defined[name].misfit(ours) for name, ours in MODULATED_CONV2D.items())


def _first_fit(theirs: Mapping[str, Signature], candidates: tuple[str, ...], only: str | None) -> Match:
    reason = ""
    for candidate in candidates:
        ours = {name: s for name, s in own_definitions(candidate).items() if only in (None, name) and _is_public(name)}
        misfits = {name: theirs[name].misfit(s) for name, s in ours.items() if name in theirs}
        found = next((f"no known {name} has {misfit}" for name, misfit in misfits.items() if misfit), None)
        if found is None:
            return Match(candidate)
        reason = reason or found
    return Match(None, reason)


def _is_public(name: str) -> bool:
    return name.endswith(".__init__") or not any(part.startswith("_") for part in [name, *name.split(".")[1:]])


def path_of(replacement: str) -> Path:
    """The file of "nvlabs.bias_act"."""
    return Path(__file__).parent.joinpath("served", *replacement.split(".")).with_suffix(".py")


@lru_cache
def own_definitions(replacement: str) -> dict[str, Signature]:
    return definitions(path_of(replacement).read_text())


@lru_cache(maxsize=256)  # an unpickled network asks again for each of its layers
def definitions(source: str) -> dict[str, Signature]:
    """The functions at a module's top level, and the methods of its classes; the last definition of a name counts."""
    found = {}
    for node in _top_level(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _signature(node)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    found[f"{node.name}.{method.name}"] = _signature(method, skip=1)
    return found


def top_level_names(source: str) -> set[str]:
    """Every name that a module binds at its top level."""
    names = set()
    for node in _top_level(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        else:
            names.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return names


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            handlers = [handler.body for handler in getattr(node, "handlers", [])]
            for part in (node.body, *handlers, node.orelse):
                yield from _top_level(part)
        else:
            yield node


def _signature(node: ast.FunctionDef, skip: int = 0) -> Signature:
    arguments = node.args
    names = [parameter.arg for parameter in (*arguments.posonlyargs, *arguments.args)]
    defaults = dict(zip(names[::-1], map(_value, arguments.defaults[::-1]), strict=False))
    takes_more = bool(arguments.vararg or arguments.kwarg or arguments.kwonlyargs)
    return Signature(tuple(names[skip:]), defaults, takes_more)


def _value(node: ast.expr) -> Any:
    """A default's value, if it is a literal or simple arithmetic such as ``2 ** 0.5`` or ``np.sqrt(2)``."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        return OPERATIONS[type(node.op)](left, right) if _is_small(left) and _is_small(right) and right else UNKNOWN
    if isinstance(node, ast.Call) and re.fullmatch(r"((np|numpy|math)\.)?sqrt", ast.unparse(node.func)) and node.args:
        value = _value(node.args[0])
        return math.sqrt(value) if _is_small(value) and value >= 0 else UNKNOWN
    return UNKNOWN


def _is_small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST_OPERAND


def _same(a: Any, b: Any) -> bool:
    if UNKNOWN in (a, b):
        return True
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) and isinstance(b, float) else bool(a == b)
