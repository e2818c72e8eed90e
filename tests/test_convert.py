"""Networks in other files: safetensors, rosinality's checkpoints, and pickles written back."""

import argparse
import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from network_pickles import DISCRIMINATOR, GENERATOR2, Persistent, dumps, generators, network, snapshot
from torch import Tensor, nn

from ganops.__main__ import main
from ganops.compat import (
    CheckpointError,
    load_network,
    load_network_pkl,
    load_rosinality,
    save_network,
    save_network_pkl,
)
from ganops.models import stylegan2


def equal(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", generators())
def test_there_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pickle -> safetensors -> pickle -> safetensors, by the command."""
    generator = generators()[name]
    pickled, written, back, again = (str(tmp_path / f) for f in ("a.pkl", "a.safetensors", "b.pkl", "b.safetensors"))
    Path(pickled).write_bytes(dumps(snapshot(generator, network(stylegan2.Discriminator, DISCRIMINATOR))))
    for source, target in ((pickled, written), (written, back), (back, again)):
        assert main(["convert", source, target]) == 0
        assert f"ganops.models.{name}.Generator(" in capsys.readouterr().out
    loaded = load_network(again)
    assert equal(loaded, generator)
    assert loaded.checkpoint_config.kwargs == load_network(written).checkpoint_config.kwargs
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    z, c = torch.randn(2, 8), torch.randn(2, 3)
    with torch.no_grad():
        assert torch.equal(loaded(z, c, noise_mode="const"), generator(z, c, noise_mode="const"))
    assert equal(load_network_pkl(back)["G"], generator)


def test_metadata_says_what_it_is(tmp_path: Path) -> None:
    discriminator = network(stylegan2.Discriminator, DISCRIMINATOR)
    save_network(discriminator, tmp_path / "d.safetensors", DISCRIMINATOR)
    with safetensors.safe_open(tmp_path / "d.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["ganops"])
    assert metadata == {"model": "stylegan2.Discriminator", "kwargs": DISCRIMINATOR, "name": "D"}
    save_network_pkl(load_network(tmp_path / "d.safetensors"), tmp_path / "d.pkl")
    loaded = load_network_pkl(tmp_path / "d.pkl")
    assert list(loaded) == ["D"] and equal(loaded["D"], discriminator)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"network must be one of ganops.models .* got Linear"):
        save_network(nn.Linear(1, 1), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="kwargs must be given"):
        save_network(network(stylegan2.Generator, GENERATOR2), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "does not say which network"),
        ({"ganops": "[]"}, "does not say which network"),
        ({"ganops": "{"}, "metadata is no JSON"),
        ({"ganops": 10**5 * "["}, "metadata is no JSON"),
        ({"ganops": json.dumps({"model": "os.system", "kwargs": {}})}, "model 'os.system' is none of stylegan2"),
        ({"ganops": json.dumps({"model": "stylegan2.Generator", "kwargs": {"x": 1}})}, "refuses its arguments"),
        ({"ganops": json.dumps({"model": "stylegan2.Generator", "kwargs": GENERATOR2})}, "are missing, such as"),
        ({"ganops": json.dumps({"model": "stylegan2.Generator", "kwargs": {"num_layers": 99}})}, "is 99, .* too large"),
    ],
)
def test_safetensors_that_are_no_network(metadata: dict[str, str] | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, path, metadata)
    with pytest.raises(CheckpointError, match=f"x.safetensors: .*{reason}"):
        load_network(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"x\.safetensors: "):
        load_network(path)


RENAMED = [
    (r"mapping\.fc(\d+)\.(.*)", lambda m: f"style.{int(m[1]) + 1}.{m[2]}"),
    (r"b4\.const", lambda m: "input.input"),
    (r"b(\d+)\.conv([01])\.weight", lambda m: f"{conv(m)}.conv.weight"),
    (r"b(\d+)\.conv([01])\.affine\.(.*)", lambda m: f"{conv(m)}.conv.modulation.{m[3]}"),
    (r"b(\d+)\.conv([01])\.bias", lambda m: f"{conv(m)}.activate.bias"),
    (r"b(\d+)\.conv([01])\.noise_strength", lambda m: f"{conv(m)}.noise.weight"),
    (r"b(\d+)\.conv([01])\.noise_const", lambda m: f"noises.noise_{index(m)}"),
    (r"b(\d+)\.torgb\.bias", lambda m: f"{rgb(m)}.bias"),
    (r"b(\d+)\.torgb\.weight", lambda m: f"{rgb(m)}.conv.weight"),
    (r"b(\d+)\.torgb\.affine\.(.*)", lambda m: f"{rgb(m)}.conv.modulation.{m[2]}"),
]


def index(m: re.Match[str]) -> int:
    """The position of a convolution among all: 4x4, 8x8 twice, 16x16 twice..."""
    return 2 * (int(m[1]).bit_length() - 3) - (1 - int(m[2]))


def conv(m: re.Match[str]) -> str:
    return f"convs.{index(m) - 1}" if index(m) else "conv1"


def rgb(m: re.Match[str]) -> str:
    level = int(m[1]).bit_length() - 3
    return f"to_rgbs.{level - 1}" if level else "to_rgb1"


def rosinality_generator(generator: nn.Module) -> dict[str, Tensor]:
    """Its state_dict, as rosinality's class of the same layers has it."""
    state: dict[str, Tensor] = {}
    for ours, tensor in generator.state_dict().items():
        for pattern, theirs in RENAMED:
            if match := re.fullmatch(pattern, ours.removeprefix("synthesis.")):
                name = theirs(match)
                tensor = tensor[None] if name.endswith(("conv.weight", "input", "noise.weight")) else tensor
                tensor = tensor[None, None] if name.startswith("noises") else tensor
                state[name] = tensor[None, :, None, None] if ".torgb.bias" in ours else tensor
    kernel = 4 * generator.synthesis.b4.resample_filter
    for level in range(len(generator.synthesis.block_resolutions) - 1):
        state[f"convs.{2 * level}.conv.blur.kernel"] = state[f"to_rgbs.{level}.upsample.kernel"] = kernel
    return state


def rosinality_discriminator(discriminator: nn.Module) -> dict[str, Tensor]:
    tensors = discriminator.state_dict()
    state = {}
    names = {"b16.fromrgb": ("convs.0.0", "convs.0.1"), "b4.conv": ("final_conv.0", "final_conv.1")}
    names |= {"b4.fc": ("final_linear.0",) * 2, "b4.out": ("final_linear.1",) * 2}
    for i, block in enumerate(("b16", "b8"), 1):
        names[f"{block}.conv0"] = f"convs.{i}.conv1.0", f"convs.{i}.conv1.1"
        names[f"{block}.conv1"] = f"convs.{i}.conv2.1", f"convs.{i}.conv2.2"
        state[f"convs.{i}.skip.1.weight"] = tensors[f"{block}.skip.weight"]
        for kernel in ("conv2.0", "skip.0"):
            state[f"convs.{i}.{kernel}.kernel"] = tensors[f"{block}.resample_filter"]
    for ours, (weight, bias) in names.items():
        state |= {f"{weight}.weight": tensors[f"{ours}.weight"], f"{bias}.bias": tensors[f"{ours}.bias"]}
    return state


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    sizes = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3}
    options = {"channel_base": 96, "channel_max": 8, "num_fp16_res": 0, "conv_clamp": None}
    generator = network(stylegan2.Generator, {**sizes, **options, "mapping_kwargs": {"num_layers": 3}})
    sizes = {name: sizes[name] for name in ("c_dim", "img_resolution", "img_channels")}
    return {"g_ema": generator, "d": network(stylegan2.Discriminator, {**sizes, **options})}


@pytest.fixture(scope="module")
def checkpoint(networks: dict[str, nn.Module]) -> dict[str, Any]:
    g, d = rosinality_generator(networks["g_ema"]), rosinality_discriminator(networks["d"])
    optimiser = torch.optim.Adam(networks["d"].parameters()).state_dict()
    return {"g": g, "d": d, "g_ema": g, "g_optim": optimiser, "args": argparse.Namespace(size=16), "ada_aug_p": 0.0}


def saved(content: Any, zipped: bool = True) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinality(zipped: bool, networks: dict[str, nn.Module], checkpoint: dict[str, Any]) -> None:
    latent_avg = networks["g_ema"].mapping.w_avg
    loaded = load_rosinality(saved({**checkpoint, "latent_avg": latent_avg}, zipped))
    assert list(loaded) == ["g", "d", "g_ema"]
    assert equal(loaded["g_ema"], networks["g_ema"]) and equal(loaded["d"], networks["d"])
    z = torch.randn(4, 8)
    image = networks["g_ema"](z, noise_mode="const")
    assert torch.equal(loaded["g"](z, noise_mode="const"), image)
    assert torch.equal(loaded["d"](image), networks["d"](image))


def test_rosinality_without_an_average(checkpoint: dict[str, Any]) -> None:
    mapping = load_rosinality(saved({"g_ema": checkpoint["g_ema"]}))["g_ema"].mapping
    with torch.no_grad():
        expected = mapping(torch.randn(20_000, 8))[:, 0]
    error = (mapping.w_avg - expected.mean(0)).abs() / expected.std(0)
    assert error.max() < 5 / 4096**0.5, "five standard errors of the mean"


def test_rosinality_by_the_command(
    checkpoint: dict[str, Any], networks: dict[str, nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = str(tmp_path / "000000.pt"), str(tmp_path / "d.safetensors")
    Path(source).write_bytes(saved(checkpoint).getvalue())
    assert main(["convert", source, target, "--network", "d"]) == 0
    assert equal(load_network(target), networks["d"])
    assert main(["convert", source, target, "--network", "x"]) == 1
    assert "holds none of x" in capsys.readouterr().err


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cos\nsystem\n.")
    for arguments, status, reason in (
        (["x.onnx", "y.safetensors"], 2, "argument FROM: expected .pkl, .pt or .safetensors"),
        (["x.pkl", "y.onnx"], 2, "argument TO: expected .safetensors or .pkl"),
        (["x.safetensors", "y.pkl", "--network", "G"], 2, "argument --network"),
        (["missing.pkl", "y.safetensors"], 1, "missing.pkl"),
        ([str(path), str(tmp_path / "y.safetensors")], 1, "it names 'os.system'"),
    ):
        assert main(["convert", *arguments]) == status
        assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(dumps({"G_ema": Persistent("TriPlaneGenerator", {"_init_kwargs": {"z_dim": 512}}), "G": None}))
    for options, reason in (
        ([], "G_ema is <inert record of TriPlaneGenerator(z_dim=512)>, of which ganops has no model"),
        (["--network", "H"], "has no network 'H', only G_ema, G"),
    ):
        assert main(["convert", str(path), str(tmp_path / "y.safetensors"), *options]) == 1
        assert reason in capsys.readouterr().err


class Command:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def compressed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinality_files_that_run_code(zipped: bool, checkpoint: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values; refused"):
        load_rosinality(saved({**checkpoint, "args": Command()}, zipped))


def test_rosinality_files_that_do_not_fit(checkpoint: dict[str, Any]) -> None:
    for change, reason in (
        ({"convs.0.conv.weight": torch.ones(1, 8, 8, 1, 1)}, "another shape, such as synthesis.b8.conv0.weight"),
        ({"conv1.conv.weight": torch.ones(2, 8, 8, 3, 3)}, r"conv1.conv.weight has shape \[2, 8, 8, 3, 3\]"),
        ({"to_rgbs.0.upsample.kernel": torch.eye(4)}, "no blur kernel, or different ones"),
        ({"extra": torch.ones(1)}, "has 'extra', which no such network has"),
        ({"extra": 3}, "is no state_dict of ordinary tensors"),
        ({3: torch.ones(1)}, "is no state_dict of ordinary tensors"),
        ({"conv1.conv.weight": torch.ones(1).expand(1, 2**20, 2**20, 3, 3)}, "is no state_dict of ordinary tensors"),
        ({"conv1.conv.weight": torch.ones(1, 8, 8, 3, 3, device="meta")}, "is no state_dict of ordinary tensors"),
        ({"conv1.conv.weight": torch.ones(1, 8, 8, 3, 3).to_sparse()}, "is no state_dict of ordinary tensors"),
    ):
        with pytest.raises(CheckpointError, match=f"the checkpoint: g: .*{reason}"):
            load_rosinality(saved({"g": {**checkpoint["g"], **change}}))
    del (lacking := dict(checkpoint["d"]))["final_conv.1.bias"]
    with pytest.raises(CheckpointError, match=r"d: lacks final_conv.1.bias"):
        load_rosinality(saved({"d": lacking}))
    with pytest.raises(CheckpointError, match="holds none of g, d, g_ema"):
        load_rosinality(saved({"model": 1}))
    with pytest.raises(CheckpointError, match="holds a list"):
        load_rosinality(saved([1]))


def test_zip_tricks(checkpoint: dict[str, Any]) -> None:
    data = saved(checkpoint).getvalue()
    with pytest.raises(CheckpointError, match="zip entries are compressed"):
        load_rosinality(io.BytesIO(compressed(data)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    directory = data.rindex(b"PK\x01\x02", 0, data.rindex(entry.filename.encode()))
    sizes = data[directory + 20 : directory + 28]
    assert sizes == 2 * entry.file_size.to_bytes(4, "little")
    larger = data[: directory + 20] + 2 * (2**30).to_bytes(4, "little") + data[directory + 28 :]
    with pytest.raises(CheckpointError, match="zip entries are larger than the file"):
        load_rosinality(io.BytesIO(larger))
    for damaged in (data[: len(data) // 2], b"", b"PK\x03\x04", b"\x80\x02}.", data[:100] + data[200:]):
        with pytest.raises(CheckpointError, match="the checkpoint: "):
            load_rosinality(io.BytesIO(damaged))
