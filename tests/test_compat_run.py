"""python -m ganops run: as python itself would run the script, but for the operators."""

import os
import subprocess
import sys
from pathlib import Path

import codebases
import pytest

from ganops.__main__ import main

SCRIPT = """
import json, sys
import torch
from torch_utils.ops import bias_act
from training import networks_stylegan3

if __name__ == "__main__":
    x = bias_act.bias_act(torch.ones(1, 3, 4, 4, device=torch.device("cuda")), act="lrelu")
    y = networks_stylegan3.modulated_conv2d(x.to("cuda:0"), torch.ones(2, 3, 1, 1).cuda(), torch.ones([1, 3]))
    print(json.dumps([sys.argv, sys.path[0], __name__, __file__, str(y.device)]))
    sys.exit(7)
"""

CHILD = """
import torch.multiprocessing
from torch_utils.ops import bias_act

def work(rank):
    print("child", bias_act.__file__)

if __name__ == "__main__":
    torch.multiprocessing.spawn(work)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = codebases.NVLABS | {"tools/draw.py": SCRIPT, "draw.py": SCRIPT, "train.py": CHILD}
    for name, text in files.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


def run(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ganops", "run", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_a_script_is_run_as_python_runs_it(checkout: Path) -> None:
    (checkout / "link.py").symlink_to("draw.py")
    result = run(checkout.parent, "--explain", "--keep", "bias_act", "--keep", "fma", "checkout/draw.py", "--help", "-m", "1")
    assert result.returncode == 1 and "a file that ganops replaces was run" in result.stderr  # bias_act was kept
    assert "torch_utils.ops.bias_act" in result.stderr and "left alone  to be kept" in result.stderr
