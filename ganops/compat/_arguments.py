"""What the replacements share: arguments as the codebases pass them, made into what ganops takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .. import _backend


@contextmanager
def implementation(impl: str) -> Iterator[None]:
    """``impl="ref"`` asks for plain PyTorch; "cuda", everyone's default, for the fastest there is on x's device."""
    if impl not in ("cuda", "ref"):
        raise ValueError(f"impl must be 'cuda' or 'ref', got {impl!r}")
    if impl == "cuda":
        yield
        return
    with _backend.backend(_backend.REFERENCE):
        yield


def impl_of(use_custom_op: bool) -> str:
    """mmcv's name for the same choice."""
    return "cuda" if use_custom_op else "ref"


def optional_number(value: Any) -> float | None:
    """Gains and clamps come as numpy scalars and one-element tensors, too."""
    return None if value is None else float(value)


def like(b: Tensor | None, x: Tensor) -> Tensor | None:
    """A bias in x's dtype."""
    return None if b is None else b.to(x.dtype)


def taps(f: Tensor | None) -> Tensor | None:
    """A filter as ganops takes it: networks in half precision convert their filters with all their other buffers."""
    return f if f is None or f.dtype.itemsize > 2 else f.float()
