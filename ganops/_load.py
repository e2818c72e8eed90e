"""Loads the compiled kernels into torch's dispatcher. Never compiles anything."""

import glob
import os
import warnings

import torch


def find() -> str | None:
    """The path of the compiled library, if there is one."""
    found = sorted(glob.glob(os.path.join(os.path.dirname(__file__), "_C.*")))
    return next((path for path in found if path.endswith((".so", ".pyd", ".dylib"))), None)


def _load() -> str | None:
    """None if the kernels are loaded, else the reason why not."""
    library = find()
    if library is None:
        return "this installation has no compiled kernels (built with GANOPS_BUILD=reference, or not built)"
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = f"{os.path.basename(library)} does not load beside torch {torch.__version__}: {error}"
        warnings.warn(f"ganops falls back to plain PyTorch: {reason}", RuntimeWarning, stacklevel=3)
        return reason
    return None


UNAVAILABLE = _load()
