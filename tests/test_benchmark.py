"""The benchmark runs, and its cases have the sizes of the networks' layers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import NETWORK

import ganops

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"up4-down2": 276, "up2-down2": 84, "up2-radial-down2": 84, "blur-257": 256, "blur-65": 64, "image-up2": 1024}
SIZES |= {"skip-down2": 128, "up2-128": 256}


def benchmark(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(ganops.__file__).parents[1])}
    command = [sys.executable, str(ROOT / "benchmarks" / "ops.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize("case", NETWORK, ids=str)
def test_sizes(case) -> None:
    tensors = {name: torch.empty(shape, device="meta") for name, shape in case.shapes.items()}
    assert case.run(tensors).shape[2:] == (SIZES.get(case.name, case.shapes["x"][-1]),) * (len(case.shapes["x"]) - 2)
    assert case.flops > 0


@pytest.mark.parametrize("backward", [False, True])
def test_a_case_is_one_line(backward: bool) -> None:
    if ganops.backends()["cpu"] != "available":
        pytest.skip(ganops.backends()["cpu"])
    done = benchmark("bias_act-mapping", "--repeat", "1", "--threads", "1", *["--backward"] * backward)
    assert done.returncode == 0, done.stderr
    head, columns, line = done.stdout.splitlines()
    assert head.startswith("torch ") and "threads: 1, medians of 1" in head and columns.endswith("x ref.")
    kind = r"forward\+backward" if backward else r"forward  .*"
    assert re.fullmatch(rf"bias_act mapping +\[4,512\] float32 +{kind}( +\d+\.\d+){{4,5}}", line)


def test_bad_arguments() -> None:
    done = benchmark("nothing")
    assert done.returncode == 2 and "no case is named so; there are: filtered_lrelu-up4-down2" in done.stderr
    assert benchmark("--repeat", "0").returncode == 2
