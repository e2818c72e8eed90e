"""The operators' CUDA kernels on the emulator, as backends of ganops: "simt" checks accesses, "simt-fast" does not."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.utils.cpp_extension
from simt_build import CSRC, build
from simt_emulator import Emulator

from ganops import _backend
from ganops.ops._library import OPERATORS, define

NAMESPACES = {"simt": "ganops_simt", "simt-fast": "ganops_simt_fast"}


def build_ops(name: str, overlay: Path | None = None) -> Path:
    """Builds the library of this backend, with changed files of csrc if there is a folder of them."""
    flags = [f"-DGANOPS_SIMT_NAMESPACE={NAMESPACES[name]}", "-DTORCH_TARGET_VERSION=0x020d000000000000ULL"]
    flags += [flag for path in torch.utils.cpp_extension.include_paths() for flag in ("-isystem", path)]
    libraries = Path(torch.__file__).parent / "lib"
    kernels = sorted(CSRC.glob("*/cuda*.cu"))
    return build(
        kernels,
        check=name == "simt",
        host_sources=[CSRC / op / "op.cpp" for op in sorted({path.parent.name for path in kernels})],
        flags=[*flags, f"-DGANOPS_TORCH={torch.__version__.split('+')[0].replace('.', '_')}"],
        link_flags=[f"-L{libraries}", "-ltorch_cpu", "-lc10"],
        overlay=overlay,
    )


def load_ops(name: str, library: Path) -> Emulator:
    """Makes ``ganops.backend(name)`` choose this library."""
    emulator = Emulator(library)
    torch.ops.load_library(str(library))
    for operator in OPERATORS:
        define(operator, NAMESPACES[name])
    _backend.add_namespace(name, NAMESPACES[name])
    return emulator


@functools.cache
def emulated_ops(name: str) -> Emulator:
    """The backend of this name, built and loaded once a process."""
    return load_ops(name, build_ops(name))
