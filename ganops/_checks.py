"""Argument checks. Every message names the argument, what came and what was wanted."""

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST = sys.float_info.max
SEQUENCES, NUMBERS = (list, tuple), (int, float)
FILTER_DTYPES = (torch.float32, torch.float64)


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def tensor(name: str, value: Any, dtypes: Sequence[torch.dtype] = DTYPES) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must have dtype {_names(dtypes)}, got {_names([value.dtype])}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    return value


def image(name: str, value: Any) -> Tensor:
    x = tensor(name, value)
    if x.ndim != 4:
        raise ValueError(f"{name} must be [N, C, H, W], got shape {list(x.shape)}")
    if x.shape[1] < 1 or x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"{name} must have at least one channel, row and column, got shape {list(x.shape)}")
    return x


def same_device(name: str, value: Tensor, x: Tensor) -> None:
    if value.device != x.device:
        raise ValueError(f"{name} must be on x's device {x.device}, got {value.device}")


def has_shape(t: Tensor, *shapes: tuple[int, ...]) -> bool:
    """Whether t has one of these shapes; element by element, as torch.compile can follow it."""
    return any(t.ndim == len(s) and all(a == b for a, b in zip(t.shape, s, strict=True)) for s in shapes)


def vector(name: str, value: Any, x: Tensor, length: int, what: str, same_dtype: bool = True) -> Tensor:
    b = tensor(name, value)
    if same_dtype and b.dtype != x.dtype:
        raise TypeError(f"{name} must have x's dtype {_names([x.dtype])}, got {_names([b.dtype])}")
    if b.ndim != 1 or b.shape[0] != length:
        raise ValueError(f"{name} must have shape [{length}] ({what}), got {list(b.shape)}")
    same_device(name, b, x)
    return b


def fir_filter(name: str, value: Any, x: Tensor) -> Tensor | None:
    if value is None:
        return None
    f = tensor(name, value, FILTER_DTYPES)
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"{name} must be None, [taps] or [height, width], and not empty, got shape {list(f.shape)}")
    if f.requires_grad:
        raise ValueError(f"{name} must not require a gradient: filters are never differentiated")
    same_device(name, f, x)
    return f


def integer(name: str, value: Any, minimum: int | None = None, index: int | None = None) -> int:
    """An int; as the index-th of a list, where that is given."""
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if isinstance(value, bool):
        raise TypeError(f"{_element(name, index)} must be an int, got bool")
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{_element(name, index)} must be an int, got {type(value).__name__}") from None
    if minimum is not None and result < minimum:
        raise ValueError(f"{_element(name, index)} must be at least {minimum}, got {result}")
    return result


def _element(name: str, index: int | None) -> str:
    return name if index is None else f"{name}[{index}]"


def _integers(name: str, value: Any, lengths: tuple[int, ...], minimum: int | None) -> list[int]:
    if not isinstance(value, SEQUENCES):
        return [integer(name, value, minimum)]
    if len(value) not in lengths:
        wanted = " or ".join(map(str, lengths))
        raise ValueError(f"{name} must be an int or a list of {wanted} ints, got {list(value)}")
    return [integer(name, v, minimum, i) for i, v in enumerate(value)]


def factors(name: str, value: Any) -> tuple[int, int]:
    """An int or [x, y] -> (x, y)."""
    v = _integers(name, value, (2,), 1)
    return v[0], v[-1]


def padding(value: Any) -> tuple[int, int, int, int]:
    """An int, [x, y] or [x_before, x_after, y_before, y_after] -> the last form."""
    v = _integers("padding", value, (2, 4), None)
    return tuple(v) if len(v) == 4 else (v[0], v[0], v[-1], v[-1])  # type: ignore[return-value]


def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def clamp(value: Any) -> float:
    """None (off) -> -1; an infinite clamp is off, too."""
    if value is None or value == math.inf:
        return -1.0
    result = number("clamp", value)
    if result < 0:
        raise ValueError(f"clamp must be None or at least 0, got {value}")
    return result


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")
    return value


def output_size(what: str, height: int, width: int, x: Tensor) -> None:
    if height < 1 or width < 1:
        raise ValueError(
            f"x of shape {list(x.shape)} gives {what} of {height}x{width}; it must be at least 1x1: "
            "use a larger x, more padding or a shorter filter"
        )
