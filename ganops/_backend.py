"""Which implementation serves an operator: the choice, its reasons, and the one call every operator goes through."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _gpu, _load
from ._compile import constant_result
from ._formats import like_format
from ._setting import Setting

AUTO, REFERENCE = "auto", "reference"
NATIVE_DEVICES = ("cpu", "cuda")

_chosen = Setting("backend", AUTO)
_references: dict[str, Callable[..., Any]] = {}
_namespaces: dict[str, str] = {device: "ganops" for device in NATIVE_DEVICES}
_operators: dict[tuple[str, str], Callable[..., Any]] = {}
_warned_slow: set[str] = set()


def backends() -> dict[str, str]:
    """What can serve the operators on this machine: name -> "available", or the reason why it is not."""
    return {REFERENCE: "available", **{device: why_not(device) or "available" for device in NATIVE_DEVICES}}


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force an implementation inside a ``with`` block, for this thread or asynchronous task alone.

    Args:
        name: "auto" (compiled kernels where they exist), "reference" (plain PyTorch, differentiated by torch itself),
            or a key of :func:`backends`; with "cpu" or "cuda" a tensor on another device is refused.

    Forward-mode AD and the transforms of torch.func (vmap, grad, jvp, ...) are always served by "reference".

    A backward pass runs on the implementation in force where it is called; a compiled function keeps to the one in
    force when it was compiled.

    Raises:
        ValueError: unknown name.
        RuntimeError: that implementation is not available here; the text says why.
    """
    known = [AUTO, REFERENCE, *_namespaces]
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(map(repr, known))}, got {name!r}")
    reason = why_not(name) if name in NATIVE_DEVICES else None
    if reason:
        raise RuntimeError(f"backend {name!r} is not available: {reason}")
    with _chosen.use(name):
        yield


@constant_result
def chosen() -> str:
    return _chosen.get()


def add_namespace(name: str, namespace: str) -> None:
    """Make ``backend(name)`` run the operators of another namespace: tests run kernels on emulators so."""
    _namespaces[name] = namespace


def add_operator(namespace: str, op: str, function: Callable[..., Any]) -> None:
    """What serves an operator where no compiler looks on."""
    _operators[namespace, op] = function


def add_reference(op: str, function: Callable[..., Any]) -> None:
    _references[op] = function


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype in which autocast wants matrix products on this device; None outside autocast."""
    if not torch._C._is_any_autocast_enabled():
        return None
    kind = device.type
    known = kind != "meta" and torch.amp.is_autocast_available(kind)
    return torch.get_autocast_dtype(kind) if known and torch.is_autocast_enabled(kind) else None


def without_autocast(function: Callable[..., Any], device: torch.device, *args: Any) -> Any:
    if autocast_dtype(device) is None:
        return function(*args)
    with torch.autocast(device.type, enabled=False):
        return function(*args)


def run_reference(function: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """A reference states its dtypes, which autocast must not change; and the result takes over x's memory format."""
    result = without_autocast(function, x.device, x, *args)
    if isinstance(result, tuple):
        return (like_format(result[0], x), *result[1:])
    return like_format(result, x)


def call(op: str, x: Tensor, *args: Any) -> Any:
    """Run ``op`` on the implementation in force."""
    name = chosen()
    if _is_served_by_reference(name):
        return run_reference(_references[op], x, *args)
    if name in NATIVE_DEVICES and x.device.type != name:
        raise RuntimeError(f"backend {name!r} is in force, but x is on {x.device}")
    if name == AUTO and x.device.type == "cuda":
        _warn_if_slow(x.device.type)
    namespace = _namespaces.get(name, "ganops")
    if torch.compiler.is_compiling():
        return getattr(getattr(torch.ops, namespace), op)(x, *args)
    return _operators[namespace, op](x, *args)


def has_cpu_kernel(op: str, x: Tensor) -> bool:
    """Whether to call an operator that CPUs alone have a kernel for; a compiler sees those that it stands in for."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and chosen() in (AUTO, "cpu")
        and why_not("cpu", op) is None
    )


def is_reference() -> bool:
    return _is_served_by_reference(chosen())


def _is_served_by_reference(name: str) -> bool:
    """Whether it is in force, or forward-mode AD or a transform of torch.func is, of which kernels know nothing.

    Torch would take a kernel's result for a constant in forward mode, and give zeros without a word.
    """
    if name == REFERENCE or torch.compiler.is_compiling():
        return name == REFERENCE
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def why_not(device: str, op: str = "bias_act") -> str | None:
    """Why no compiled kernel serves ``op`` on this device; None if one does."""
    if _load.UNAVAILABLE:
        return _load.UNAVAILABLE
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"ganops::{op}", device.upper()):
        return f"no {device.upper()} kernel is compiled"
    if device != "cuda":
        return None
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        return "torch sees no GPU" if built else f"torch {torch.__version__} is a CPU build"
    return _gpu.why_unfit(torch.cuda.get_device_capability(), _gpu.driver_version(), _gpu.build_info())


@constant_result
def _warn_if_slow(device: str) -> None:
    reason = None if device in _warned_slow else why_not(device)
    _warned_slow.add(device)
    if reason:
        message = f"ganops runs in plain PyTorch on {device}, many times slower than its kernels: {reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
