"""Builds ganops against the torch that is installed already. Metadata: pyproject.toml.

GANOPS_BUILD=reference  installs pure Python: no compiler is needed, every operator runs in plain PyTorch
GANOPS_WERROR=1         turns compiler warnings into errors
GANOPS_CUDA=0|1         leaves the CUDA kernels out, or insists on them (default: with a CUDA toolkit and a CUDA torch)
CUDA_HOME               the CUDA toolkit, if it is not the one of the nvcc on PATH
TORCH_CUDA_ARCH_LIST    the GPU architectures, such as "8.0;9.0+PTX" (default: every one since Turing)
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

REMEDY = (
    "To install without compiling (plain PyTorch serves every operator, slower): GANOPS_BUILD=reference pip install ..."
)
STABLE_ABI = (2, 13)  # one library for every torch from this one on; with an older torch, for that one on
ARCHITECTURES = "7.5;8.0+PTX;8.6;8.9;9.0;10.0;12.0"
FLAGS = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
CUDA_FLAGS = ["-O3", "-std=c++17", "--threads=2", "-Xfatbin=-compress-all", "-Xcompiler=-fvisibility=hidden"]
if os.environ.get("GANOPS_WERROR") == "1":
    FLAGS += ["-Werror"]
    CUDA_FLAGS += ["-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror"]


def import_cpp_extension():
    # An isolated build sees its own site-packages first; torch is taken from the environment that ganops goes into.
    sys.path.append(sysconfig.get_path("purelib"))
    try:
        import torch.utils.cpp_extension as cpp_extension
    except ImportError as error:
        sys.exit(
            f"ganops: torch cannot be imported ({error}). Install it first (pip install torch), and build with "
            f"--no-build-isolation where the build cannot see it.\n{REMEDY}"
        )
    return cpp_extension


def cuda_toolkit(is_cuda_torch):
    """The folder of the toolkit to compile CUDA kernels with, or None to leave them out."""
    wanted = os.environ.get("GANOPS_CUDA") or ("auto" if is_cuda_torch else "0")
    if wanted == "0":
        return None
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    if nvcc := shutil.which("nvcc"):  # it may be a script, so it is asked where its toolkit lies
        said = subprocess.run([nvcc, "--dryrun", "-c", "any.cu"], capture_output=True, text=True).stderr
        homes[1:1] = [os.path.realpath(top) for top in re.findall(r"^#\$ TOP=(.+)$", said, re.MULTILINE)]
    home = next((home for home in homes if home and os.access(f"{home}/bin/nvcc", os.X_OK)), None)
    if wanted == "1" and not home:
        sys.exit(
            "ganops: GANOPS_CUDA=1, but no CUDA toolkit was found. Put its nvcc on PATH or its folder in CUDA_HOME, "
            "or leave the CUDA kernels out: GANOPS_CUDA=0"
        )
    return home


def architecture_flags(architectures):
    """nvcc's flags. No kernel needs an instruction newer than compute_80's: one front end serves all from there on."""
    wanted = [re.fullmatch(r"(\d+)\.(\d)[af]?(\+PTX)?", each) for each in re.split(r"[; ,]+", architectures.strip())]
    if not all(wanted):
        sys.exit(f"ganops: TORCH_CUDA_ARCH_LIST must be a list such as '8.0;9.0+PTX', got {architectures!r}")
    numbers = sorted({(int(each[1] + each[2]), bool(each[3])) for each in wanted})
    flags = []
    for group in ([n for n in numbers if n[0] < 80], [n for n in numbers if n[0] >= 80]):
        if group:
            front_end = f"compute_{group[0][0]}"
            code = [f"sm_{number}" for number, _ in group] + [front_end] * any(ptx for _, ptx in group)
            flags.append(f"-gencode=arch={front_end},code=[{','.join(dict.fromkeys(code))}]")
    return flags


def extension_arguments():
    if os.environ.get("GANOPS_BUILD", "native") == "reference":
        return {}
    cpp_extension = import_cpp_extension()
    import torch

    major, minor = min(tuple(int(part) for part in torch.__version__.split(".")[:2]), STABLE_ABI)
    includes = [flag for path in cpp_extension.include_paths() for flag in ("-isystem", path)]  # no warnings from there
    sources = [path for path in sorted(Path("csrc").glob("*/*.cpp")) if path.parent.name != "simt"]
    options = {
        "define_macros": [("TORCH_TARGET_VERSION", f"0x{major:02x}{minor:02x}000000000000ULL")],
        "include_dirs": [os.path.abspath("csrc")],
        "extra_compile_args": {"cxx": FLAGS + includes},
        "extra_link_args": ["-Wl,--as-needed", "-Wl,--exclude-libs,ALL", "-s"],
    }
    if home := cuda_toolkit(torch.version.cuda):
        cpp_extension.CUDA_HOME = home  # a CPU torch has none
        flags = architecture_flags(os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES)
        names = ",".join(re.findall(r"code=\[(.+?)\]", " ".join(flags)))
        sources += sorted(Path("csrc").glob("*/cuda*.cu"))
        options["define_macros"] += [("GANOPS_CUDA", None), ("USE_CUDA", None)]
        options["extra_compile_args"]["cxx"] += [f"-DGANOPS_ARCHITECTURES={names}"]  # nvcc would split it at commas
        options["include_dirs"] += [f"{home}/include"]
        options["extra_compile_args"]["nvcc"] = CUDA_FLAGS + flags + includes
        options["library_dirs"] = [f"{home}/lib64", f"{home}/lib"]
        options["libraries"] = ["cudart_static", "dl", "rt", "pthread"]  # so that it loads where there is no CUDA
    extension = cpp_extension.CppExtension("ganops._C", list(map(str, sources)), py_limited_api=True, **options)

    class BuildExtension(cpp_extension.BuildExtension):
        def run(self):
            try:
                super().run()
            except Exception as error:
                needed = "A C++17 compiler is needed (g++ 11 or newer)."
                sys.exit(f"ganops: the kernels did not compile: {error}\n{needed}\n{REMEDY}")

    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildExtension},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(**extension_arguments())
