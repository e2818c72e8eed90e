"""Builds ganops for aarch64 with a cross compiler, and runs its Python there, under QEMU's user-mode emulation.

On Debian, with the packages g++-aarch64-linux-gnu and qemu-user-static; all else is fetched into the folder:

    python tests/aarch64.py build/aarch64 -m ganops check --device cpu
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
COMPILER, EMULATOR, PROCESSOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static", "neoverse-n1"
TORCH = "2.10.0"  # the last one whose wheel for aarch64 is a CPU build
PACKAGES = ["numpy", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock"]
PACKAGES += ["pytest", "pluggy", "iniconfig", "packaging", "pygments", "hypothesis", "sortedcontainers", "scipy"]
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (17, 24, 27, 28)] + ["manylinux2014_aarch64"]


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def fetch_python(system: Path) -> None:
    """Debian's Python and C++ library for arm64, by an apt of its own that knows no other packages."""
    apt = system.parent / "apt"
    for folder in (apt / "state/lists/partial", apt / "cache/archives/partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
    }
    options = [f"--option={name}={value}" for name, value in settings.items()]
    run("apt-get", *options, "-qq", "update")
    run("apt-get", *options, "-qqy", "--no-install-recommends", "--download-only", "install", "python3", "libstdc++6")
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        run("dpkg", "-x", package, system)
    # Torch would read about the host's processor otherwise.
    (system / "proc").mkdir()
    (system / "proc/cpuinfo").write_text("processor : 0\n")


def fetch_torch(site: Path, version: str) -> None:
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"),
        *(*platforms, f"--python-version={version}", f"--target={site}", f"torch=={TORCH}", *PACKAGES),
    )


def build(objects: Path, torch: Path, library: Path) -> None:
    """With setup.py's flags, and warnings as errors."""
    with mock.patch("setuptools.setup"):
        flags = runpy.run_path(str(ROOT / "setup.py"))["FLAGS"]
    major, minor = map(int, TORCH.split(".")[:2])
    flags = [*flags, "-Werror", "-fPIC", f"-I{ROOT / 'csrc'}", "-DTORCH_EXTENSION_NAME=_C"]
    flags += ["-DPy_LIMITED_API=0x030A0000", f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000ULL"]
    for include in (torch / "include", torch / "include/torch/csrc/api/include", sysconfig.get_path("include")):
        flags += ["-isystem", str(include)]
    objects.mkdir(exist_ok=True)

    def compiled(source: Path) -> Path:
        target = objects / f"{source.parent.name}_{source.stem}.o"
        run(COMPILER, *flags, "-c", source, "-o", target)
        return target

    sources = [path for path in sorted((ROOT / "csrc").glob("*/*.cpp")) if path.parent.name != "simt"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compiled, sources))
    libraries = [f"-L{torch / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu", "-Wl,--allow-shlib-undefined"]
    run(COMPILER, "-shared", *made, *libraries, "-Wl,--as-needed", "-s", "-o", library)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what is fetched and built stays there for the next run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of Python on aarch64")
    args = parser.parse_args()
    if missing := [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]:
        parser.error(f"{' and '.join(missing)} must be installed")
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    system, site, package = folder / "system", folder / "site", folder / "package"
    if not system.exists():
        fetch_python(system)
    python = (system / "usr/bin/python3").resolve()
    if not site.exists():
        fetch_torch(site, python.name.removeprefix("python"))
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "ganops", package / "ganops", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    build(folder / "objects", site / "torch", package / "ganops/_C.abi3.so")
    environment = {"PYTHONPATH": f"{package}:{site}", "PYTHONSAFEPATH": "1"}  # the folder it runs in has ganops, too
    command = [EMULATOR, "-cpu", PROCESSOR, "-L", system, python, *args.arguments]
    sys.exit(subprocess.run(command, env={**os.environ, **environment}).returncode)


if __name__ == "__main__":
    main()
