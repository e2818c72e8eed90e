"""What a GPU was measured to do, against the cost model: measured on request, kept in the user's cache, read lazily.

The file, ``$XDG_CACHE_HOME/ganops/tuning.json``, holds a table for each GPU and version of ganops: for each kind of
convolution the factor by which our kernel took longer than modelled, relative to torch's way.
"""

import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from . import _cost_model


class Measurement(NamedTuple):
    """One convolution's times in seconds, measured and modelled."""

    kind: str
    kernel: float
    torch: float
    modelled_kernel: float
    modelled_torch: float

    def correction(self) -> float:
        return (self.kernel / self.torch) / (self.modelled_kernel / self.modelled_torch)


def path() -> Path:
    """Where the tables are kept. A relative XDG_CACHE_HOME is ignored, as its specification demands."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "ganops" / "tuning.json"


def key(gpu: str) -> str:
    from . import __version__

    return f"{gpu}, ganops {__version__}"


def correction(gpu: str, kind: str) -> float:
    """The factor for this kind of convolution on this GPU; 1 where nothing was measured."""
    return _tables().get(key(gpu), {}).get(kind, 1.0)


@functools.cache
def _tables() -> dict[str, dict[str, float]]:
    try:
        return _parse(path().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"{path()} is ignored: {error}", RuntimeWarning, stacklevel=2)
        return {}


def _parse(text: str) -> dict[str, dict[str, float]]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(table, dict) for table in found.values()):
        raise ValueError("it must hold a table for each GPU")
    tables = {gpu: {kind: float(factor) for kind, factor in table.items()} for gpu, table in found.items()}
    if not all(0 < factor < math.inf for table in tables.values() for factor in table.values()):
        raise ValueError("factors must be positive numbers")
    return tables


def corrections(measurements: Iterable[Measurement]) -> dict[str, float]:
    """The geometric mean of each kind's factors."""
    logs: dict[str, list[float]] = {}
    for measurement in measurements:
        logs.setdefault(measurement.kind, []).append(math.log(measurement.correction()))
    return {kind: math.exp(sum(values) / len(values)) for kind, values in logs.items()}


def save(gpu: str, table: dict[str, float]) -> Path:
    """Replaces this GPU's table in the file, which appears whole or not at all; returns its path."""
    where = path()
    try:
        tables = _parse(where.read_text())
    except (OSError, ValueError):
        tables = {}
    where.parent.mkdir(parents=True, exist_ok=True)
    unfinished = where.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({**tables, key(gpu): table}, indent=1) + "\n")
    unfinished.replace(where)
    _tables.cache_clear()
    return where


# Layers to measure: channels in and out, pixels along a side, taps along an axis; some for each kind.
LAYERS = ((512, 512, 32, 3), (256, 256, 128, 3), (64, 64, 256, 3), (512, 512, 64, 1), (128, 3, 256, 1))


def tune(device: torch.device, seconds: Callable[[Callable[[], Tensor]], float]) -> tuple[dict[str, float], Path]:
    """Measures both ways on ``LAYERS``, and keeps how far the model is off on this GPU.

    Args:
        device: the GPU.
        seconds: the time of a call, as the caller measures it.

    Returns:
        The factors by kind of convolution, and the file that they are kept in.
    """
    from . import _cost_model

    gpu = _cost_model.gpu_of(device)
    table = corrections(
        _measure(gpu, device, dtype, *layer, seconds) for dtype in (torch.float16, torch.float32) for layer in LAYERS
    )
    return table, save(gpu.name, table)


def _measure(
    gpu: "_cost_model.Gpu",
    device: torch.device,
    dtype: torch.dtype,
    in_channels: int,
    out_channels: int,
    size: int,
    taps: int,
    seconds: Callable[[Callable[[], Tensor]], float],
) -> Measurement:
    from . import _cost_model, modulated_conv2d

    x = torch.randn(1, in_channels, size, size, device=device, dtype=dtype)
    weight = torch.randn(out_channels, in_channels, taps, taps, device=device)
    styles, bias = torch.randn(1, in_channels, device=device), torch.randn(out_channels, device=device)

    def call() -> Tensor:
        with torch.no_grad():
            return modulated_conv2d(x, weight, styles, padding=taps // 2, bias=bias, act="lrelu")

    measured = {}
    for by_kernel in (True, False):
        with _cost_model.forced(by_kernel):
            measured[by_kernel] = seconds(call)
    shapes = _cost_model.shapes_of(x, weight, 1, 1)
    allow_tf32 = bool(torch.backends.cudnn.allow_tf32)
    modelled = _cost_model.kernel_seconds(shapes, gpu), _cost_model.torch_seconds(shapes, gpu, allow_tf32)
    return Measurement(shapes.kind(), measured[True], measured[False], *modelled)
