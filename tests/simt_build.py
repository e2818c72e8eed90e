"""Compiles CUDA sources with g++ into libraries that run them on the emulator in csrc/simt.

Needs g++ 11 or newer and nothing else: no CUDA toolkit. Objects are cached under build/simt by the hash of what they
are made from, so a second call with the same sources costs a few milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "simt"
JOBS = 2

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-DGANOPS_SIMT", f"-I{CSRC}", *WARNINGS]
# A call in tail position would lose the place that it was made from, and diagnostics name that place.
KERNEL = [*COMMON, "-fno-optimize-sibling-calls"]
FAST = [*KERNEL, "-O3", "-g1"]
# The compiler calls a hook before every access. Scalar replacement would split a 16-byte access into four before that.
CHECK = [*KERNEL, "-O1", "-g", "-fsanitize=thread", "-fno-tree-sra", "-fno-ipa-sra"]
RUNTIME = [*COMMON, "-O2", "-g"]


def compiler() -> str:
    return os.environ.get("CXX", "g++")


@functools.cache
def compiler_version() -> str:
    return subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout


def with_includes(source: Path) -> list[Path]:
    """The source and every file of the project that it includes, directly or not."""
    found: dict[Path, None] = {}
    pending = [source]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found[path] = None
        for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
            pending += [p.resolve() for p in (path.parent / name, CSRC / name) if p.is_file()]
    return sorted(found)


def compile_object(source: Path, flags: Sequence[str], overlay: Path | None = None) -> Path:
    """The object of a source. Files of the folder ``overlay`` stand in for those of csrc with the same path."""
    files = {path: path for path in with_includes(source)}
    if overlay:
        # The flag, which is part of the digest, is for those sources alone that the overlay changes.
        changed = {CSRC / path.relative_to(overlay): path for path in overlay.glob("*/*")}
        if files.keys() & changed.keys():
            files.update({path: changed[path] for path in files.keys() & changed.keys()})
            flags = [f"-I{overlay}", *flags, "-w"]
    digest = hashlib.sha256(repr((compiler_version(), list(flags))).encode())
    for path, content in files.items():
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + content.read_bytes())
    result = CACHE / f"{source.stem}-{digest.hexdigest()[:16]}.o"
    with locked(result):
        if not result.exists():
            run_compiler([*flags, "-x", "c++", "-c", str(files[source])], result)
    return result


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Of several processes that want to make a file, one does and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_compiler(arguments: Sequence[str], result: Path) -> None:
    unfinished = result.with_suffix(f".{os.getpid()}{result.suffix}")  # so that another process never sees half a file
    done = subprocess.run([compiler(), *arguments, "-o", str(unfinished)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{compiler()} failed on {' '.join(arguments)}\n{done.stderr}")
    unfinished.replace(result)


def build(
    sources: Iterable[Path],
    *,
    check: bool,
    ucontext: bool = False,
    count_flops: bool = False,
    host_sources: Iterable[Path] = (),
    flags: Sequence[str] = (),
    link_flags: Sequence[str] = (),
    overlay: Path | None = None,
) -> Path:
    """Builds a library of kernels and returns its path.

    Args:
        sources: CUDA sources that include common/device.h.
        check: True for the check build, which sees every access of the kernels; False for the fast build.
        ucontext: switch fibers with the C library's ucontext, as on machines other than x86-64.
        count_flops: make accumulate_t a type that counts its operations.
        host_sources: C++ sources without kernels, which need no checking.
        flags: further flags for the sources and the host sources.
        link_flags: further flags for the link.
        overlay: a folder with changed files of csrc.

    Raises:
        RuntimeError: the compiler failed; the message holds what it printed.
    """
    choice = ["-DGANOPS_SIMT_UCONTEXT"] if ucontext else []
    kernel_flags = [*(CHECK if check else FAST), *(["-DGANOPS_SIMT_FLOPS"] if count_flops else []), *flags]
    runtime = [p for p in sorted((CSRC / "simt").glob("*.cpp")) if check or p.name != "hooks.cpp"]
    # The runtime comes first: where it shares an inline function of the standard library with a kernel, the linker
    # keeps the first copy, and the runtime's own memory must not be reported to the checker.
    jobs = [(path, [*RUNTIME, *choice]) for path in runtime]
    jobs += [(path.resolve(), [*COMMON, "-O1", *flags]) for path in host_sources]
    jobs += [(path.resolve(), kernel_flags) for path in sources]
    with ThreadPoolExecutor(JOBS) as pool:
        objects = list(pool.map(lambda job: compile_object(*job, overlay), jobs))
    names = repr(([p.name for p in objects], list(link_flags)))
    library = CACHE / f"libsimt-{hashlib.sha256(names.encode()).hexdigest()[:16]}.so"
    with locked(library):
        if not library.exists():
            link = ["-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", *map(str, objects), *link_flags, "-ldl", "-lpthread"]
            run_compiler(link, library)
    return library
