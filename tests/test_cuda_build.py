"""Building the CUDA kernels: which toolkit, which architectures, and whether the result fits a GPU."""

import json
import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools
import torch

from ganops import _gpu, _load
from ganops._gpu import BuildInfo, serving, why_unfit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setup_py(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The functions of setup.py, which builds nothing here."""
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
    monkeypatch.setenv("GANOPS_BUILD", "reference")
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize(
    ("architectures", "flags"),
    [
        ("8.0;9.0", ["-gencode=arch=compute_80,code=[sm_80,sm_90]"]),
        ("7.5 8.6+PTX", ["-gencode=arch=compute_75,code=[sm_75]", "-gencode=arch=compute_86,code=[sm_86,compute_86]"]),
        ("9.0a;8.0+PTX;8.0;12.0", ["-gencode=arch=compute_80,code=[sm_80,sm_90,sm_120,compute_80]"]),
    ],
)
def test_one_front_end_serves_many_architectures(setup_py, architectures: str, flags: list[str]) -> None:
    assert setup_py["architecture_flags"](architectures) == flags


def test_release_serves_every_gpu_since_turing(setup_py) -> None:
    flags = " ".join(setup_py["architecture_flags"](setup_py["ARCHITECTURES"]))
    for name in ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_80"):
        assert name in flags


@pytest.mark.parametrize("architectures", ["Ampere", "80", "8.0;", "8.0-PTX"])
def test_bad_architectures_are_refused(setup_py, architectures: str) -> None:
    with pytest.raises(SystemExit, match=r"TORCH_CUDA_ARCH_LIST must be a list such as '8.0;9.0\+PTX', got"):
        setup_py["architecture_flags"](architectures)


def make_toolkit(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "nvcc").write_text("#!/bin/sh\n")
    (folder / "bin" / "nvcc").chmod(0o755)
    return folder


def test_toolkit_is_found_behind_a_script(setup_py, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolkit = make_toolkit(tmp_path / "cuda")
    script = tmp_path / "nvcc"
    script.write_text(f'#!/bin/sh\necho "#\\$ TOP={toolkit}/bin/.." >&2\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("GANOPS_CUDA", "1")
    assert setup_py["cuda_toolkit"](None) == str(toolkit)
    other = make_toolkit(tmp_path / "other")
    monkeypatch.setenv("CUDA_HOME", str(other))
    assert setup_py["cuda_toolkit"](None) == str(other)
    monkeypatch.setenv("GANOPS_CUDA", "0")
    assert setup_py["cuda_toolkit"]("13.0") is None
    monkeypatch.delenv("GANOPS_CUDA")
    assert setup_py["cuda_toolkit"](None) is None
    assert setup_py["cuda_toolkit"]("13.0") == str(other)


def test_missing_toolkit_names_the_remedy(setup_py, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.delenv("GANOPS_CUDA", raising=False)
    assert setup_py["cuda_toolkit"]("13.0") is None
    monkeypatch.setenv("GANOPS_CUDA", "1")
    with pytest.raises(SystemExit, match=r"no CUDA toolkit was found.*PATH.*CUDA_HOME.*GANOPS_CUDA=0"):
        setup_py["cuda_toolkit"]("13.0")


ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_80"]


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((7, 0), None),
        ((7, 5), "sm_75"),
        ((8, 0), "sm_80"),
        ((8, 7), "sm_86"),
        ((8, 9), "sm_86"),
        ((9, 0), "sm_90"),
        ((10, 3), "compute_80"),
        ((12, 0), "compute_80"),
    ],
)
def test_what_serves_a_gpu(capability: tuple[int, int], name: str | None) -> None:
    assert serving(capability, ARCHITECTURES) == name


@pytest.mark.parametrize(
    ("capability", "driver", "text"),
    [
        ((8, 0), (13, 0), None),
        ((8, 0), (12, 8), "the driver knows CUDA up to 12.8, and the library was built with 13.1"),
        ((12, 0), (13, 1), None),
        ((12, 0), (13, 0), "the driver knows CUDA up to 13.0"),
        ((7, 0), (13, 1), "the GPU is sm_70, and the library holds sm_75, .*TORCH_CUDA_ARCH_LIST=7.0"),
        ((9, 0), None, None),
    ],
)
def test_why_a_library_does_not_fit(capability: tuple[int, int], driver: tuple[int, int] | None, text: str) -> None:
    reason = why_unfit(capability, driver, BuildInfo(toolkit="13.1", architectures=ARCHITECTURES))
    assert reason is None if text is None else re.match(text, reason or "")


@pytest.mark.skipif(_load.UNAVAILABLE is not None, reason="the library is not compiled")
def test_library_says_what_it_was_built_with() -> None:
    built = _gpu.build_info()
    major, minor = (int(part) for part in built.torch.split("."))
    assert (2, 10) <= (major, minor) <= tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert bool(built.toolkit) == bool(built.architectures)
    assert set(json.loads(torch.ops.ganops.build_info())) >= {"compiler", "torch"}
