"""The training example: it stops and goes on, and processes together do what one does alone."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "train_digits.py"
TINY = ("--batch", "8", "--channels", "8", "--noise-mode", "const")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(example: ModuleType, out: Path, *more: str) -> argparse.Namespace:
    return example.parse_arguments(["--out", str(out), *TINY, *more])


def states(trainer: Any) -> dict[str, torch.Tensor]:
    return {f"{a}.{b}": t for a, module in trainer.modules().items() for b, t in module.state_dict().items()}


def test_the_frechet_distance_is_that_of_normal_distributions(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(500, 6, generator=generator, dtype=torch.float64)
    assert example.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert example.frechet_distance(a, a + 2) == pytest.approx(6 * 4)
    # Of diagonal covariances it is the sum of squared differences of standard deviations.
    scale = torch.tensor([1.0, 2, 3, 1, 1, 0.5], dtype=torch.float64)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(a.T.cov()), (a - a.mean(0)).T, upper=False).T
    assert example.frechet_distance(white, white * scale) == pytest.approx(float((scale - 1).square().sum()))


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(example: ModuleType, tmp_path: Path) -> None:
    whole = example.Trainer(arguments(example, tmp_path), 0, 1)
    for _ in range(4):
        whole.advance()
    first = example.Trainer(arguments(example, tmp_path), 0, 1)
    for _ in range(2):
        first.advance()
    first.save(tmp_path)
    second = example.Trainer(arguments(example, tmp_path, "--seed", "0"), 0, 1)
    second.load(tmp_path)
    assert second.step == 2
    for _ in range(2):
        second.advance()
    for (name, a), b in zip(states(whole).items(), states(second).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_an_interrupted_save_leaves_the_last_checkpoint(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = example.Trainer(arguments(example, tmp_path), 0, 1)
    trainer.save(tmp_path)
    trainer.advance()

    def full(*args: Any, **options: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(example.torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        trainer.save(tmp_path)
    other = example.Trainer(arguments(example, tmp_path), 0, 1)
    other.load(tmp_path)
    assert other.step == 0


@contextmanager
def double_precision() -> Iterator[None]:
    """In float32 the order of sums alone changes a noise strength's gradient, nearly all cancelled, by 1e-5 of it."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


@double_precision()
def gradients(example: ModuleType, out: Path, rank: int, world: int) -> dict[str, torch.Tensor]:
    """Of all four losses, with random parameters instead of the first ones, some of which are zero."""
    trainer = example.Trainer(arguments(example, out), rank, world)
    generator = torch.Generator().manual_seed(1)
    for module in (trainer.generator, trainer.discriminator):
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    found = {}
    for loss, network in (
        (trainer.generator_loss, trainer.generator),
        (trainer.path_length_loss, trainer.generator),
        (trainer.discriminator_loss, trainer.discriminator),
        (trainer.r1_loss, trainer.discriminator),
    ):
        idle = SimpleNamespace(zero_grad=network.zero_grad, step=lambda: None)
        trainer.update(loss, network, idle)
        found |= {f"{loss.__name__}.{name}": p.grad.clone() for name, p in network.named_parameters()}
    return found


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(example: ModuleType, tmp_path: Path) -> None:
    alone = gradients(example, tmp_path, 0, 1)
    environment = {**os.environ, "GANOPS_TEST_OUT": str(tmp_path)}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    zero = {name for name, gradient in alone.items() if not gradient.any()}
    assert all(name.endswith("bias") or "noise_strength" in name for name in zero), zero  # of the two regularisers
    for rank in range(2):
        together = torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True)
        assert together.keys() == alone.keys()
        for name, expected in alone.items():
            scale = expected.abs().max().item()
            assert (together[name] - expected).abs().max().item() <= 1e-6 * scale + 1e-12, name


def test_the_command_trains_and_reports(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), *TINY, "--steps"]
    for steps in ("2", "3"):
        done = subprocess.run([*command, steps, "--interval", "2"], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert f"after {steps} steps" in done.stdout
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-0000003"]
    assert (tmp_path / "samples.png").exists() and (tmp_path / "loss.png").exists()
    assert (tmp_path / "log.csv").read_text().count("\n") == 1 + 1 + 3


if __name__ == "__main__":  # one of the two processes
    sys.path.insert(0, str(SCRIPT.parent))
    import torch.distributed as dist
    import train_digits

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    folder = Path(os.environ["GANOPS_TEST_OUT"])
    result = gradients(train_digits, folder, dist.get_rank(), dist.get_world_size())
    torch.save(result, folder / f"gradients-{dist.get_rank()}.pt")
    dist.destroy_process_group()
