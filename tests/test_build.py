"""Building and installing: without a compiler, with a failing one, without torch, and without x86-64's own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KERNEL_FILES = sorted(path for path in (ROOT / "csrc").glob("*/cpu.cpp"))
OUR_COMPILER = os.environ.get("CXX", "c++")
# A compiler that compiles nothing and links what it gets: enough to see how a wheel is put together.
HOLLOW_COMPILER = """#!/bin/sh
case " $* " in
*" -c "*) while [ "$1" != -o ]; do shift; done; exec {compiler} -fPIC -x c++ -c /dev/null -o "$2" ;;
*) exec {compiler} "$@" ;;
esac
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree, as it is unpacked."""
    target = tmp_path / "source"
    target.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    for name in ("ganops", "csrc"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return target


def build_wheel(source: Path, **environment: str) -> tuple[str, list[Path]]:
    """What pip prints, and the wheel it makes."""
    out = source.parent / "out"
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", str(out), str(source)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GANOPS_")}
    # The ninja of this environment is found even where the environment is not activated.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    environment = {**inherited, "PATH": path, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=source.parent, timeout=600)
    wheels = list(out.glob("*.whl"))
    assert (done.returncode == 0) == (len(wheels) == 1), done.stderr
    return done.stdout + done.stderr, wheels


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture
def torch_that_fails(tmp_path: Path) -> str:
    """A folder for PYTHONPATH whose torch cannot be imported."""
    folder = tmp_path / "no_torch"
    folder.mkdir()
    (folder / "torch.py").write_text("raise ImportError('torch is not here')")
    return str(folder)


def test_pure_python_needs_neither_compiler_nor_torch(source: Path, torch_that_fails: str) -> None:
    output, wheels = build_wheel(source, GANOPS_BUILD="reference", PATH="", CXX="false", PYTHONPATH=torch_that_fails)
    assert wheels, output
    assert wheels[0].name.endswith("-py3-none-any.whl")
    names = contents(wheels[0])
    assert {"ganops/__init__.py", "ganops/reference/upfirdn2d.py", "ganops/py.typed"} <= names
    assert not any(name.endswith(".so") or name.startswith(("csrc", "tests")) for name in names)


def test_compiled_wheel_serves_every_python_from_3_10(source: Path) -> None:
    compiler = source.parent / "hollow-c++"
    compiler.write_text(HOLLOW_COMPILER.format(compiler=shutil.which(OUR_COMPILER)))
    compiler.chmod(0o755)
    output, wheels = build_wheel(source, CXX=str(compiler), GANOPS_CUDA="0")
    assert wheels, output
    assert "-cp310-abi3-" in wheels[0].name
    assert [name for name in contents(wheels[0]) if ".so" in name] == ["ganops/_C.abi3.so"]


def test_a_failing_compiler_names_the_remedy(source: Path) -> None:
    output, wheels = build_wheel(source, CXX=shutil.which("false") or "false", GANOPS_CUDA="0")
    assert not wheels
    assert "ganops: the kernels did not compile" in output and "GANOPS_BUILD=reference pip install" in output


def test_missing_torch_names_the_remedy(source: Path, torch_that_fails: str) -> None:
    output, wheels = build_wheel(source, PYTHONPATH=torch_that_fails)
    assert not wheels
    assert "torch cannot be imported (torch is not here)" in output and "pip install torch" in output


def test_intrinsics_are_in_one_place() -> None:
    """Kernels use vectors of the compiler's own; what is x86-64's alone stays behind GANOPS_X86_64."""
    intrinsic = re.compile(r"\b_mm\d*_|\b__m\d{3}|immintrin")
    files = [path for path in (ROOT / "csrc").rglob("*.*") if path.suffix in (".h", ".cpp", ".cu")]
    users = {str(path.relative_to(ROOT / "csrc")) for path in files if intrinsic.search(path.read_text())}
    assert users == {"common/cpu.h", "common/simd.h"}


@pytest.mark.parametrize("file", KERNEL_FILES, ids=lambda path: path.parent.name)
def test_kernels_compile_without_x86(file: Path) -> None:
    from torch.utils.cpp_extension import include_paths

    includes = [f for path in (*include_paths(), sysconfig.get_path("include")) for f in ("-isystem", path)]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas"]
    defined = ["-DTORCH_TARGET_VERSION=0x020d000000000000ULL", "-DGANOPS_PORTABLE"]
    command = [OUR_COMPILER, "-fsyntax-only", "-std=c++17", *warnings, *defined, f"-I{ROOT / 'csrc'}", *includes]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
