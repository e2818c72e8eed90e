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
from typing import NamedTuple


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


def tune(gpu: str, measure: Callable[[], Iterable[Measurement]]) -> tuple[dict[str, float], Path]:
    """Measures, keeps the factors for this GPU, and returns them and the file they are in."""
    table = corrections(measure())
    return table, save(gpu, table)
