"""Checkpoints that other codebases' own classes made, loaded without them: equal images and scores.

Each test needs a checkout, which an environment variable names: GANOPS_STYLEGAN3 of NVlabs/stylegan3,
GANOPS_STYLEGAN2_ADA of NVlabs/stylegan2-ada-pytorch, GANOPS_ROSINALITY of rosinality/stylegan2-pytorch. Their code runs
in processes of its own; nothing of it is importable here.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import relative_error
from torch import nn

from ganops.compat import Record, load_network, load_network_pkl, load_rosinality, save_network, save_network_pkl

CHECKOUTS = {
    "ada": "GANOPS_STYLEGAN2_ADA",
    "stylegan2": "GANOPS_STYLEGAN3",
    "stylegan3-t": "GANOPS_STYLEGAN3",
    "stylegan3-r": "GANOPS_STYLEGAN3",
    "rosinality": "GANOPS_ROSINALITY",
}
TOLERANCE = 1e-5
CLIENT = Path(__file__).with_name("checkpoint_client.py")


def run(kind: str, *args: str | Path) -> None:
    checkout = os.environ.get(CHECKOUTS[kind])
    if checkout is None:
        pytest.skip(f"{CHECKOUTS[kind]} names no checkout")
    path = os.pathsep.join([checkout, str(CLIENT.parents[1])])
    result = subprocess.run(
        [sys.executable, CLIENT, *args], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def agree(what: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
    error = relative_error(actual, expected)
    print(f"{what}: greatest difference / RMS {error:.1e}")
    assert error <= TOLERANCE


def image(generator: nn.Module, outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return generator(outputs["z"], outputs["c"], truncation_psi=0.7, truncation_cutoff=4, noise_mode="const")


@pytest.mark.parametrize("kind", [kind for kind in CHECKOUTS if kind != "rosinality"])
def test_nvidia(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "network.pkl"
    run(kind, "make", kind, file, tmp_path / "outputs.pt")
    outputs = torch.load(tmp_path / "outputs.pt")
    assert not any(map(importlib.util.find_spec, ("torch_utils", "dnnlib", "training", "legacy")))
    loaded = load_network_pkl(file)
    for name in ("G", "G_ema"):
        agree(f"{kind} {name}", image(loaded[name], outputs), outputs[name])
    with torch.no_grad():
        agree(f"{kind} D", loaded["D"](outputs["G"], outputs["c"]), outputs["D"])
    assert isinstance(loaded["augment_pipe"], Record)
    assert repr(loaded["augment_pipe"]) == "<inert record of AugmentPipe(xflip=1, rotate=1)>"
    assert loaded["training_set_kwargs"]["path"] == "images.zip"
    assert [loaded[name].training for name in ("G", "G_ema")] == [True, False]

    save_network(loaded["G_ema"], tmp_path / "network.safetensors")
    save_network_pkl(load_network(tmp_path / "network.safetensors"), tmp_path / "back.pkl")
    agree(f"{kind} back", image(load_network_pkl(tmp_path / "back.pkl")["G"], outputs), outputs["G_ema"])
    for command, source in (("legacy", "back.pkl"), ("trusted", "network.pkl")):
        run(kind, command, tmp_path / source, tmp_path / "again.pt")
        agree(f"{kind} {command}", torch.load(tmp_path / "again.pt")["G_ema"], outputs["G_ema"])


def test_rosinality(tmp_path: Path) -> None:
    file = tmp_path / "000000.pt"
    run("rosinality", "make", "rosinality", file, tmp_path / "outputs.pt")
    outputs = torch.load(tmp_path / "outputs.pt")
    loaded = load_rosinality(file)
    with torch.no_grad():
        for name in ("g", "g_ema"):
            drawn = loaded[name](outputs["z"], truncation_psi=0.7, noise_mode="const")
            agree(f"rosinality {name}", drawn, outputs["g"])
        agree("rosinality d", loaded["d"](outputs["g"]), outputs["d"])
