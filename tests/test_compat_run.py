"""python -m ganops run: as python itself would run a script, but for the operators."""

import json
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
from torch_utils.ops import bias_act, conv2d_gradfix
from training import networks_stylegan3

def work(rank):
    print("child", bias_act.__file__)

if __name__ == "__main__":
    x = bias_act.bias_act(torch.ones(1, 3, 4, 4, device=torch.device("cuda")), act="lrelu")
    y = networks_stylegan3.modulated_conv2d(x.to("cuda:0"), torch.ones(2, 3, 1, 1).cuda(), torch.ones([1, 3]))
    print(json.dumps([sys.argv, sys.path[0], __name__, __file__, str(y.device)]))
    if sys.argv[1:] == ["--spawn"]:
        torch.multiprocessing.spawn(work)
    sys.exit(7)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = codebases.NVLABS | {"tools/draw.py": SCRIPT, "draw.py": SCRIPT}
    files["torch_utils/ops/conv2d_gradfix.py"] = codebases.CONV2D_GRADFIX
    for name, text in files.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ganops", "run", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_a_script(checkout: Path) -> None:
    (checkout.parent / "link.py").symlink_to("checkout/draw.py")
    result = run(
        checkout.parent,
        "--explain",
        "--cpu",
        "--keep",
        "conv2d_gradfix",
        "link.py",
        "--help",
        "-m",
        "--keep",
        "nothing",
    )
    assert result.returncode == 7, result.stderr
    argv, path, name, file, device = json.loads(result.stdout)
    assert argv == ["link.py", "--help", "-m", "--keep", "nothing"] and Path(path) == checkout.resolve()
    assert (name, file, device) == ("__main__", "link.py", "cpu")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stderr.splitlines()[1:]}
    assert lines["torch_utils.ops.bias_act"] == "replaced    by ganops.compat.served.nvlabs.bias_act"
    assert lines["training.networks_stylegan3.modulated_conv2d"].startswith("patched")
    assert lines["torch_utils.ops.conv2d_gradfix"] == "left alone  to be kept"
    assert lines.keys() & {"torch_utils.misc", "training.networks_stylegan2.modulated_conv2d"} == set()


def test_a_module_and_its_child_processes(checkout: Path) -> None:
    result = run(checkout, "--cpu", "-m", "tools.draw", "--spawn")
    assert result.returncode == 7, result.stderr
    first, *children = result.stdout.splitlines()
    argv, path, name, file, _ = json.loads(first)
    draw = str(checkout / "tools" / "draw.py")
    assert (argv, name, file) == ([draw, "--spawn"], "__main__", draw) and Path(path) == checkout
    assert [Path(child.removeprefix("child ")).parent.name for child in children] == ["nvlabs"]


def test_starting_costs_little_more_than_torch() -> None:
    code = "import sys, ganops.cli.run, ganops.compat; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no_such.py"], "argument SCRIPT: 'no_such.py' does not exist"),
        (["--keep", "convolution", __file__], "argument --keep: keep must hold names among modulated_conv2d, "),
        (["-m", "no_such_module"], "argument -m: no module is called 'no_such_module'"),
    ],
)
def test_bad_arguments(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_script_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--explain"])
    assert "SCRIPT" in capsys.readouterr().err
