"""python -m ganops info, and python -m ganops check."""

import os
import re
import subprocess
import sys

import pytest
import torch

import ganops
from ganops import _load
from ganops.__main__ import BROKEN_PIPE, main
from ganops.cli import check
from ganops.ops._library import OPERATORS


def test_info_names_what_serves_each_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for word in (ganops.__version__, torch.__version__, "driver", "GPU"):
        assert word in text
    if not _load.UNAVAILABLE:
        assert re.search(r"built by (g|clang)\+\+ \d+\.\d+", text)
    on_cpu, on_cuda = text.split("on cpu: ", 1)[1].split("on cuda: ", 1)
    for operator in OPERATORS:
        assert f"  {operator.name}\n" in on_cpu and f"  {operator.name}\n" in on_cuda
    for name, part in (("cpu", on_cpu), ("cuda", on_cuda)):
        state = ganops.backends()[name]
        assert part.startswith("compiled kernel" if state == "available" else f"plain PyTorch ({state})")


def test_info_without_a_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ganops._load.UNAVAILABLE", "it was not built")
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "library       it was not built" in text and "on cpu: plain PyTorch (it was not built)" in text


def test_check_compares_every_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    for op in ("bias_act", "upfirdn2d", "filtered_lrelu", "modulated_conv2d"):
        assert f"\n{op} " in text
    assert "FAIL" not in text and text.count("  OK\n") == len(check._cases())


def test_check_fails_where_a_result_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = check.results

    def slightly_wrong(case: check.Case, inputs, dtype, device, backend_name) -> list[torch.Tensor]:
        found = right(case, inputs, dtype, device, backend_name)
        if backend_name == "auto" and dtype == torch.float32:
            found[-1].view(-1)[0] += 1e-2
        return found

    monkeypatch.setattr(check, "results", slightly_wrong)
    assert main(["check", "--device", "cpu", "--only", "bias_act tanh"]) == 1
    text = capsys.readouterr().out
    assert "FAIL (float32: more than 3e-06 / 9e-06)" in text and "0 of 1 cases agree" in text


def test_check_fails_where_a_kernel_raises(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*args: object) -> list[torch.Tensor]:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(check, "results", fails)
    assert main(["check", "--device", "cpu", "--only", "bias_act tanh"]) == 1
    assert "FAIL (float64: no kernel image" in capsys.readouterr().out


def test_nan_is_an_error() -> None:
    nan = float("nan")
    assert not check._larger(nan, 1.0) <= 1 and not check._larger(1.0, nan, 0.0) <= 1
    assert check._larger(0.5, 0.25) == 0.5


def test_check_refuses_bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--only", "nothing"]) == 2
    assert "--only: no case is called 'nothing'" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["check", "--device", "cuda"]) == 2
        assert "argument --device: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["info"], ["check", "--only", "bias_act tanh"]], ids=" ".join)
def test_a_reader_that_stops_early_ends_a_command_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ganops", *arguments]
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")
