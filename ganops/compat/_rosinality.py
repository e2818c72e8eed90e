"""Checkpoints of rosinality's stylegan2-pytorch: the layers of NVIDIA's StyleGAN2 under other names.

Weights are the same numbers: a modulated convolution has a leading 1 in its shape there, and one blur kernel, times the
squared upsampling factor, is where ganops has a normalised filter for each layer. Of the optimisers nothing is kept.
"""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from . import _source
from ._build import NetworkConfig
from ._errors import CheckpointError, shortened
from ._source import MAX_BYTES, Source

NETWORKS = {"g": "stylegan2.Generator", "d": "stylegan2.Discriminator", "g_ema": "stylegan2.Generator"}
ZIP_MAGIC, LEGACY_MAGIC = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
W_AVG_SAMPLES = 4096


def load_rosinality(
    source: Source, networks: Collection[str] = tuple(NETWORKS), *, max_bytes: int = MAX_BYTES
) -> dict[str, nn.Module]:
    """Load a checkpoint of rosinality's stylegan2-pytorch (``.pt``); executes nothing.

    Args:
        source: a path, an https address, or a file open for reading bytes.
        networks: names of those to load.
        max_bytes: the most to read.

    Returns:
        Those of "g", "d" and "g_ema" that it holds and are to be loaded, as networks of ``ganops.models.stylegan2`` on
        the CPU, in eval mode. The centre of truncation is the file's ``latent_avg``, or without one the mean w of 4096
        random z, which rosinality's scripts draw anew each time. The mapping's learning rate multiplier, which the file
        does not hold, is taken to be 0.01.

    Raises:
        CheckpointError: it is damaged, or of another kind, or its tensors are not those of such networks.
        OSError: it cannot be read.
    """
    name = _source.name_of(source)
    try:
        content = load_torch_file(_source.read(source, max_bytes))
        states = {key: content[key] for key in NETWORKS if key in content and key in networks}
        if not states:
            raise CheckpointError(f"holds none of {', '.join(networks)}")
        return {key: _network(key, state, content.get("latent_avg")) for key, state in states.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error


def load_torch_file(data: bytes) -> dict[str, Any]:
    """The dict in a torch.save file, on the CPU, by torch's own reader for weights.

    Raises:
        CheckpointError: it is no such file, is compressed or larger unpacked than packed, or holds anything but data.
    """
    try:
        if data.startswith(ZIP_MAGIC):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise CheckpointError("its zip entries are compressed, which torch.save never does; refused")
            if sum(entry.file_size for entry in entries) > len(data):
                raise CheckpointError("its zip entries are larger than the file that holds them; refused")
        elif not data.startswith(LEGACY_MAGIC):
            raise CheckpointError("is no torch.save file")
        with torch.serialization.safe_globals([argparse.Namespace]):  # rosinality's "args"
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:  # whose text advises to load without this protection
        raise CheckpointError("is damaged, or holds more than tensors and plain values; refused") from error
    except Exception as error:  # torch and zipfile raise nearly anything on damaged files
        raise CheckpointError(f"cannot be loaded: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, expected a dict")
    return content


def _ordinary(value: Any) -> bool:
    """Whether it is a tensor of real numbers on the CPU that is no larger than its storage."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.is_floating_point() and value.nbytes <= value.untyped_storage().nbytes()


class _Tensors:
    """Tensors of one network by rosinality's names, each to be taken once."""

    def __init__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(name, str) and _ordinary(t) for name, t in state.items()):
            raise CheckpointError("is no state_dict of ordinary tensors")
        self.left: dict[str, Tensor] = dict(state)

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def take(self, name: str, *, drop: int = 0, ndim: int) -> Tensor:
        """The tensor without ``drop`` leading dimensions of size 1."""
        tensor = self.left.pop(name, None)
        if tensor is None:
            raise CheckpointError(f"lacks {name}")
        if tensor.ndim != drop + ndim or any(size != 1 for size in tensor.shape[:drop]):
            raise CheckpointError(f"{name} has shape {list(tensor.shape)}, which no such network has")
        return tensor.reshape(tensor.shape[drop:])

    def layer(self, theirs: str, ours: str, ndim: int) -> dict[str, Tensor]:
        return {
            f"{ours}.weight": self.take(f"{theirs}.weight", ndim=ndim),
            f"{ours}.bias": self.take(f"{theirs}.bias", ndim=1),
        }

    def take_filter(self) -> Tensor:
        """The one filter of all layers that blur."""
        kernels = [self.take(name, ndim=2) for name in list(self.left) if name.endswith(".kernel")]
        filters = [kernel / kernel.sum() for kernel in kernels]
        if not filters or not all(f.shape == filters[0].shape and torch.allclose(f, filters[0]) for f in filters):
            raise CheckpointError("has no blur kernel, or different ones")
        return filters[0]


def _network(key: str, state: Any, latent_avg: Any) -> nn.Module:
    try:
        tensors = _Tensors(state)
        if NETWORKS[key] == "stylegan2.Discriminator":
            network = _discriminator(tensors, key)
        else:
            network = _generator(tensors, key, latent_avg)
        if tensors.left:
            raise CheckpointError(f"has {shortened(next(iter(tensors.left)))}, which no such network has")
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error
    return network.eval()


def _generator(tensors: _Tensors, name: str, latent_avg: Any) -> nn.Module:
    found: dict[str, Tensor] = {}
    mapping_layers = 0
    while f"style.{mapping_layers + 1}.weight" in tensors:
        found |= tensors.layer(f"style.{mapping_layers + 1}", f"mapping.fc{mapping_layers}", 2)
        mapping_layers += 1
    found["synthesis.b4.const"] = tensors.take("input.input", drop=1, ndim=3)
    f = tensors.take_filter()

    def styled(theirs: str, ours: str) -> None:
        found[f"{ours}.weight"] = tensors.take(f"{theirs}.conv.weight", drop=1, ndim=4)
        found.update(tensors.layer(f"{theirs}.conv.modulation", f"{ours}.affine", 2))

    def convolution(theirs: str, ours: str, noise: int) -> None:
        styled(theirs, ours)
        found[f"{ours}.bias"] = tensors.take(f"{theirs}.activate.bias", ndim=1)
        found[f"{ours}.noise_strength"] = tensors.take(f"{theirs}.noise.weight", drop=1, ndim=0)
        found[f"{ours}.noise_const"] = tensors.take(f"noises.noise_{noise}", drop=2, ndim=2)
        found[f"{ours}.resample_filter"] = f

    def to_rgb(theirs: str, ours: str) -> None:
        styled(theirs, ours)
        bias = tensors.take(f"{theirs}.bias", drop=1, ndim=3)
        found[f"{ours}.bias"] = bias.flatten()

    convolution("conv1", "synthesis.b4.conv1", 0)
    to_rgb("to_rgb1", "synthesis.b4.torgb")
    found["synthesis.b4.resample_filter"] = f
    resolution, i = 4, 0
    while f"to_rgbs.{i}.bias" in tensors:
        resolution *= 2
        block = f"synthesis.b{resolution}"
        convolution(f"convs.{2 * i}", f"{block}.conv0", 2 * i + 1)
        convolution(f"convs.{2 * i + 1}", f"{block}.conv1", 2 * i + 2)
        to_rgb(f"to_rgbs.{i}", f"{block}.torgb")
        found[f"{block}.resample_filter"] = f
        i += 1
    highest = len(found[f"synthesis.b{resolution}.conv1.weight"])
    w_dim = found["synthesis.b4.conv1.affine.weight"].shape[1]
    found["mapping.w_avg"] = torch.zeros(w_dim)
    kwargs = {
        "z_dim": w_dim,
        "c_dim": 0,
        "w_dim": w_dim,
        "img_resolution": resolution,
        "img_channels": found["synthesis.b4.torgb.weight"].shape[0],
        "mapping_kwargs": {"num_layers": mapping_layers},
        **_channels(resolution, found["synthesis.b4.const"].shape[0], highest),
    }
    network = NetworkConfig("stylegan2.Generator", kwargs, name).build(found)
    _set_w_avg(network, latent_avg)
    return network


def _channels(resolution: int, lowest: int, highest: int) -> dict[str, Any]:
    """Arguments common to both networks. Channels are a constant over the resolution, where that is below a bound."""
    return {"channel_base": resolution * highest, "channel_max": lowest, "num_fp16_res": 0, "conv_clamp": None}


def _set_w_avg(network: Any, latent_avg: Any) -> None:
    mapping = network.mapping
    if _ordinary(latent_avg) and latent_avg.numel() == mapping.w_avg.numel():
        mapping.w_avg.copy_(latent_avg.reshape(-1))
        return
    with torch.no_grad():
        z = torch.randn(W_AVG_SAMPLES, mapping.z_dim, generator=torch.Generator().manual_seed(0))
        mapping.w_avg.copy_(mapping(z)[:, 0].mean(dim=0))


def _discriminator(tensors: _Tensors, name: str) -> nn.Module:
    count = 0
    while f"convs.{count + 1}.skip.1.weight" in tensors:
        count += 1
    resolution = 4 * 2**count
    found: dict[str, Tensor] = {}
    f = tensors.take_filter()

    def convolution(theirs: str, first: int, ours: str) -> None:
        found[f"{ours}.weight"] = tensors.take(f"{theirs}.{first}.weight", ndim=4)
        found[f"{ours}.bias"] = tensors.take(f"{theirs}.{first + 1}.bias", ndim=1)
        found[f"{ours}.resample_filter"] = f

    convolution("convs.0", 0, f"b{resolution}.fromrgb")
    for i in range(1, count + 1):
        theirs, ours = f"convs.{i}", f"b{resolution >> (i - 1)}"
        convolution(f"{theirs}.conv1", 0, f"{ours}.conv0")
        convolution(f"{theirs}.conv2", 1, f"{ours}.conv1")
        found[f"{ours}.skip.weight"] = tensors.take(f"{theirs}.skip.1.weight", ndim=4)
        found[f"{ours}.skip.resample_filter"] = found[f"{ours}.resample_filter"] = f
    convolution("final_conv", 0, "b4.conv")
    found |= tensors.layer("final_linear.0", "b4.fc", 2) | tensors.layer("final_linear.1", "b4.out", 2)
    highest, image_channels = found[f"b{resolution}.fromrgb.weight"].shape[:2]
    kwargs = {
        "c_dim": 0,
        "img_resolution": resolution,
        "img_channels": image_channels,
        **_channels(resolution, len(found["b4.conv.weight"]), highest),
    }
    return NetworkConfig("stylegan2.Discriminator", kwargs, name).build(found)
