"""What nvcc makes of the kernels: registers, stack and spills as ptxas tells them, instructions as cuobjdump does."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from simt_build import CSRC, ROOT, locked, with_includes
from simt_emulator import without_parameters

CACHE = ROOT / "build" / "nvcc"
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = ["-O3", "-std=c++17", f"-I{CSRC}", "-DGANOPS_CUDA", "-Xptxas=-v", "-fatbin"]
FLAGS += [f"-gencode=arch=compute_80,code=[{','.join(ARCHITECTURES)}]"]
WIDTHS = {".128": 128, ".64": 64, ".U16": 16, ".S16": 16, ".U8": 8, ".S8": 8}
MEMORY = ("LDG", "STG", "LDGSTS", "LDS", "STS")


@dataclass
class Instance:
    """A kernel with its template arguments, compiled for one architecture."""

    op: str
    name: str
    architecture: str
    registers: int = 0
    stack: int = 0
    spills: int = 0
    shared_bytes: int = 0
    # Counts of instructions; those that access memory by width in bits, such as "LDG.128".
    instructions: Counter[str] = field(default_factory=Counter)

    @property
    def has_wide_loads(self) -> bool:
        """Whether it loads 16 bytes of global memory at a time, into registers or straight into shared memory."""
        return self.instructions["LDG.128"] + self.instructions["LDGSTS.128"] > 0


def find_tool(name: str) -> str | None:
    """A tool of the CUDA toolkit, from PATH, CUDA_HOME, the usual place, or NVIDIA's Python packages."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    folders = [os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin", *map(str, packages.glob("cu*/bin"))]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def missing() -> str | None:
    """Why the kernels cannot be looked at here; None if they can."""
    absent = [name for name in ("nvcc", "cuobjdump", "c++filt") if find_tool(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def run_tool(name: str, *arguments: str, text: str | None = None) -> str:
    done = subprocess.run([str(find_tool(name)), *arguments], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name} {' '.join(arguments)} failed: {done.stderr}")
    return done.stdout + done.stderr


def compile_kernels(source: Path) -> tuple[Path, str]:
    """The machine code of a source, and what ptxas said about it. Cached by what they are made from."""
    import torch.utils.cpp_extension

    flags = [*FLAGS, *(flag for path in torch.utils.cpp_extension.include_paths() for flag in ("-isystem", path))]
    digest = hashlib.sha256(repr((run_tool("nvcc", "--version"), flags)).encode())
    for path in with_includes(source):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    code = CACHE / f"{source.parent.name}-{digest.hexdigest()[:16]}.fatbin"
    notes = code.with_suffix(".txt")
    with locked(code):
        if not notes.exists():
            notes.write_text(run_tool("nvcc", *flags, str(source), "-o", str(code)))
    return code, notes.read_text()


def readable_name(symbol: str) -> str:
    """Without namespaces, parameters and what differs between nvcc's and g++'s names of types."""
    name = without_parameters(symbol)
    for long, short in (
        ("__half", "half_t"),
        ("__nv_bfloat16", "bfloat16_t"),
        ("ganops::", ""),
        ("simt::", ""),
        ("> >", ">>"),
    ):
        name = name.replace(long, short)
    return re.sub(r"\((?:\w+)\)|(?<=\d)u?l?(?=[,>])", "", name)


def demangle(symbols: list[str]) -> dict[str, str]:
    return dict(zip(symbols, run_tool("c++filt", text="\n".join(symbols)).splitlines(), strict=True))


@functools.cache
def instances() -> list[Instance]:
    """Every kernel instance of the library, for each of ARCHITECTURES."""
    found = []
    for source in sorted(CSRC.glob("*/cuda*.cu")):
        code, notes = compile_kernels(source)
        by_symbol: dict[tuple[str, str], Instance] = {}
        pattern = (
            r"Compiling entry function '(\w+)' for '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
            r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)"
        )
        for symbol, architecture, stack, stores, loads, registers, rest in re.findall(pattern, notes, re.DOTALL):
            shared = re.search(r"(\d+) bytes smem", rest)
            by_symbol[symbol, architecture] = Instance(
                source.parent.name,
                symbol,
                architecture,
                int(registers),
                int(stack),
                int(stores) + int(loads),
                int(shared[1]) if shared else 0,
            )
        for part in run_tool("cuobjdump", "-sass", str(code)).split("code for ")[1:]:
            for function in part.split("Function : ")[1:]:
                instance = by_symbol[function.split("\n", 1)[0].strip(), part.split("\n", 1)[0].strip()]
                instance.instructions = count_instructions(function)
        names = demangle([instance.name for instance in by_symbol.values()])
        for instance in by_symbol.values():
            instance.name = readable_name(names[instance.name])
        found += by_symbol.values()
    return found


def count_instructions(sass: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for mnemonic in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", sass):
        kind = mnemonic.split(".")[0]
        if kind in MEMORY:
            width = next((bits for mark, bits in WIDTHS.items() if mark in mnemonic), 32)
            kind = f"{kind}.{width}"
        counts[kind] += 1
    return counts
