"""Whether this library's CUDA kernels run on a GPU: what they were built with against what the machine has."""

import ctypes
import json
import re
from dataclasses import dataclass, field

import torch

from . import _load


@dataclass(frozen=True)
class BuildInfo:
    """What the compiled library was built with; empty where there is none."""

    compiler: str = ""
    torch: str = ""
    toolkit: str = ""
    architectures: list[str] = field(default_factory=list)


def build_info() -> BuildInfo:
    if _load.UNAVAILABLE:
        return BuildInfo()
    known = json.loads(torch.ops.ganops.build_info())
    architectures = known.pop("architectures", "").split(",")
    return BuildInfo(**known, architectures=[name for name in architectures if name])


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA that the installed driver knows; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def serving(capability: tuple[int, int], architectures: list[str]) -> str | None:
    """The entry of the library that a GPU of this compute capability runs; None if there is none.

    Machine code (sm_XY) runs on GPUs of the same major version and no older minor one. PTX (compute_XY) is compiled by
    the driver for any GPU that is no older. Source: CUDA C++ Programming Guide, "Application Compatibility".
    """
    major, minor = capability
    found: list[tuple[bool, int, str]] = []
    for name in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)", name)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        is_code = match[1] == "sm"
        if built <= (major, minor) and (not is_code or built[0] == major):
            found.append((is_code, built[0] * 10 + built[1], name))
    return max(found)[2] if found else None


def why_unfit(capability: tuple[int, int], driver: tuple[int, int] | None, built: BuildInfo) -> str | None:
    """Why the library's kernels cannot run on a GPU of this compute capability with this driver; None if they can."""
    name = serving(capability, built.architectures)
    if name is None:
        wanted = f"{capability[0]}.{capability[1]}"
        return (
            f"the GPU is sm_{wanted.replace('.', '')}, and the library holds {', '.join(built.architectures)}; "
            f"build it with TORCH_CUDA_ARCH_LIST={wanted}"
        )
    toolkit = tuple(int(part) for part in built.toolkit.split("."))
    # Machine code needs a driver of the toolkit's major version; PTX needs one that is no older.
    if driver is not None and driver < (toolkit if name.startswith("compute") else toolkit[:1]):
        return f"the driver knows CUDA up to {driver[0]}.{driver[1]}, and the library was built with {built.toolkit}"
    return None
