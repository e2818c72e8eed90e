"""Loads the compiled kernels into torch's dispatcher. Never compiles anything."""

import glob
import os
import warnings

import torch


def _load() -> str | None:
    """None if the kernels are loaded, else the reason why not."""
    found = sorted(glob.glob(os.path.join(os.path.dirname(__file__), "_C.*")))
    libraries = [path for path in found if path.endswith((".so", ".pyd", ".dylib"))]
    if not libraries:
        return "this installation has no compiled kernels (built with GANOPS_BUILD=reference, or not built)"
    try:
        torch.ops.load_library(libraries[0])  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = f"{os.path.basename(libraries[0])} does not load beside torch {torch.__version__}: {error}"
        warnings.warn(f"ganops falls back to plain PyTorch: {reason}", RuntimeWarning, stacklevel=3)
        return reason
    return None


UNAVAILABLE = _load()
