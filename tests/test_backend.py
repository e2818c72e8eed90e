"""Choosing an implementation: in children, without compiled kernels, on each instruction set."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import ganops
from ganops import _backend

X = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def python(code: str, path: Path = Path(ganops.__file__).parents[1], **environment: str) -> str:
    """What code prints in a child that imports ganops from ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(path), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_backend_names_are_checked() -> None:
    with (
        pytest.raises(ValueError, match=r"name must be one of 'auto', 'reference', .*got 'gpu'"),
        ganops.backend("gpu"),
    ):
        pass
    if ganops.backends()["cuda"] != "available":
        with pytest.raises(RuntimeError, match="'cuda' is not available: "), ganops.backend("cuda"):
            pass


def test_backend_is_restored_after_an_error() -> None:
    with pytest.raises(KeyError), ganops.backend("reference"):
        raise KeyError
    assert not _backend.is_reference()


def test_a_forced_device_refuses_others() -> None:
    with ganops.backend("cpu"), pytest.raises(RuntimeError, match="backend 'cpu' is in force, but x is on meta"):
        ganops.bias_act(X.to("meta"))


def test_reference_is_torchs_own_graph() -> None:
    x = X.clone().requires_grad_()
    with ganops.backend("reference"):
        y = ganops.bias_act(x, act="lrelu")
    assert "ganops" not in y.grad_fn.name().lower()


def test_concurrent_threads_agree() -> None:
    expected = ganops.upfirdn2d(X, torch.ones(4), up=2, padding=3)
    results: list[torch.Tensor] = []

    def work() -> None:
        for _ in range(20):
            results.append(ganops.upfirdn2d(X, torch.ones(4), up=2, padding=3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80 and all(torch.equal(r, expected) for r in results)


LARGE = """
import torch, ganops
torch.set_num_threads({threads})
x = torch.randn(2, 33, 70, 71, generator=torch.Generator().manual_seed(0), requires_grad=True)
f = torch.rand(12, generator=torch.Generator().manual_seed(1))
y = ganops.filtered_lrelu(x, f, f, up=2, down=2, padding=10, clamp=1.0)
z = ganops.bias_act(ganops.upfirdn2d(x, f[:4], up=2, padding=2), act="swish")
g, = torch.autograd.grad(y.square().sum() + z.square().sum(), x)
"""


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    digest = "print(hash((y.detach().numpy().tobytes(), z.detach().numpy().tobytes(), g.numpy().tobytes())))"
    runs = {python(LARGE.format(threads=n) + digest, PYTHONHASHSEED="0") for n in (1, 2, 3)}
    assert len(runs) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork_after_use() -> None:
    code = LARGE.format(threads=2) + (
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    torch.set_num_threads(1)\n"
        "    again = ganops.filtered_lrelu(x, f, f, up=2, down=2, padding=10, clamp=1.0)\n"
        "    os._exit(0 if torch.equal(again, y) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert python(code).strip() == "0"


@pytest.mark.parametrize("isa", ["baseline", "x86-64-v3", "x86-64-v4"])
def test_every_instruction_set_agrees(isa: str) -> None:
    """A machine runs the sets below its own, too: each is the one in force, or is not offered here."""
    code = LARGE.format(threads=1) + (
        "with ganops.backend('reference'):\n"
        "    ry = ganops.filtered_lrelu(x, f, f, up=2, down=2, padding=10, clamp=1.0)\n"
        "    rz = ganops.bias_act(ganops.upfirdn2d(x, f[:4], up=2, padding=2), act='swish')\n"
        "torch.testing.assert_close(y, ry); torch.testing.assert_close(z, rz)\n"
        "print(torch.ops.ganops.cpu_instruction_set())"
    )
    best = torch.ops.ganops.cpu_instruction_set()
    order = ["baseline", "x86-64-v3", "x86-64-v4"]
    used = python(code, GANOPS_CPU_ISA=isa).strip()
    assert used == order[min(order.index(isa), order.index(best))]


def test_importing_compiles_nothing_and_works_without_kernels(tmp_path: Path) -> None:
    source = Path(ganops.__file__).parent
    shutil.copytree(source, tmp_path / "ganops", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = (
        "import ganops, torch\n"
        f"assert ganops.__file__.startswith({str(tmp_path)!r})\n"
        "print(ganops.backends()['cpu'])\n"
        "print(ganops.bias_act(torch.ones(1, 2), act='relu').shape)\n"
    )
    out = python(code, tmp_path, PATH="").splitlines()
    assert "no compiled kernels" in out[0] and "GANOPS_BUILD=reference" in out[0] and out[1] == "torch.Size([1, 2])"


def test_a_broken_library_is_reported(tmp_path: Path) -> None:
    source = Path(ganops.__file__).parent
    shutil.copytree(source, tmp_path / "ganops", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "ganops" / "_C.abi3.so").write_bytes(b"not a library")
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import ganops\n"
        "print([str(w.message) for w in caught if 'ganops' in str(w.message)])\n"
        "print(ganops.backends()['cpu'])\n"
    )
    warned, reason = python(code, tmp_path).splitlines()
    assert "falls back to plain PyTorch" in warned and "_C.abi3.so does not load" in reason


def test_slow_path_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_warned_slow", set())
    monkeypatch.setattr(_backend, "why_not", lambda device: "no kernels for it")
    with pytest.warns(RuntimeWarning, match="plain PyTorch on cuda, many times slower.*: no kernels for it") as caught:
        _backend._warn_if_slow("cuda")
        _backend._warn_if_slow("cuda")
    assert len(caught) == 1
