"""Builds ganops against the torch that is installed already. Metadata: pyproject.toml.

GANOPS_BUILD=reference  installs pure Python: no compiler is needed, every operator runs in plain PyTorch
GANOPS_WERROR=1         turns compiler warnings into errors
GANOPS_CUDA=0|1         leaves the CUDA kernels out, or insists on them (default: with a CUDA toolkit and a CUDA torch)
TORCH_CUDA_ARCH_LIST    the GPU architectures, as for every torch extension
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

REMEDY = (
    "To install without compiling (plain PyTorch serves every operator, slower): GANOPS_BUILD=reference pip install ..."
)
STABLE_ABI = (2, 13)  # one library for every torch from this one on; with an older torch, for that one on


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


def extension_arguments():
    if os.environ.get("GANOPS_BUILD", "native") == "reference":
        return {}
    cpp_extension = import_cpp_extension()
    import torch

    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    major, minor = min(version, STABLE_ABI)
    flags = [
        "-O3",
        "-g0",
        "-std=c++17",
        "-fvisibility=hidden",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-ffp-contract=fast",
    ]
    flags += ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas"]
    flags += [flag for path in cpp_extension.include_paths() for flag in ("-isystem", path)]  # no warnings from there
    if os.environ.get("GANOPS_WERROR") == "1":
        flags.append("-Werror")
    extension = cpp_extension.CppExtension(
        "ganops._C",
        [str(path) for path in sorted(Path("csrc").glob("*/*.cpp")) if path.parent.name != "simt"],
        include_dirs=[os.path.abspath("csrc")],
        define_macros=[("TORCH_TARGET_VERSION", f"0x{major:02x}{minor:02x}000000000000ULL")],
        extra_compile_args={"cxx": flags},
        extra_link_args=["-Wl,--as-needed", "-Wl,--exclude-libs,ALL", "-s"],
        py_limited_api=True,
    )

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
