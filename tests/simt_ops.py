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


@functools.cache
def emulated_ops(name: str) -> Emulator:
    """Builds the backend of this name, once a process, and makes ``ganops.backend(name)`` choose it."""
    namespace = NAMESPACES[name]
    flags = [f"-DGANOPS_SIMT_NAMESPACE={namespace}", "-DTORCH_TARGET_VERSION=0x020d000000000000ULL"]
    flags += [flag for path in torch.utils.cpp_extension.include_paths() for flag in ("-isystem", path)]
    libraries = Path(torch.__file__).parent / "lib"
    kernels = sorted(CSRC.glob("*/cuda.cu"))
    library = build(
        kernels,
        check=name == "simt",
        host_sources=[path.with_name("op.cpp") for path in kernels],
        flags=[*flags, f"-DGANOPS_TORCH={torch.__version__.split('+')[0].replace('.', '_')}"],
        link_flags=[f"-L{libraries}", "-ltorch_cpu", "-lc10"],
    )
    emulator = Emulator(library)
    torch.ops.load_library(str(library))
    for operator in OPERATORS:
        define(operator, namespace)
    _backend.add_namespace(name, namespace)
    return emulator
