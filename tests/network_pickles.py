"""Makes pickles in the form of NVIDIA's codebases, from networks of ganops and without those codebases."""

import io
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganops.models import stylegan2, stylegan3

GENERATOR2: dict[str, Any] = {
    "z_dim": 8,
    "c_dim": 3,
    "w_dim": 8,
    "img_resolution": 16,
    "img_channels": 3,
    "channel_base": 128,
    "channel_max": 8,
}
GENERATOR3: dict[str, Any] = {**GENERATOR2, "num_layers": 4, "margin_size": 2}
DISCRIMINATOR: dict[str, Any] = {name: GENERATOR2[name] for name in GENERATOR2 if name not in ("z_dim", "w_dim")}

CANARY = "a source was executed"
SOURCE = f"raise SystemExit({CANARY!r})\n"


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None: ...


class EasyDict(dict): ...


# Names in the pickles, whatever is importable here.
_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
EasyDict.__module__ = "dnnlib.util"


class Persistent:
    """Pickled as a persistence record."""

    def __init__(self, class_name: str, state: dict[str, Any], **meta: Any) -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": class_name,
            "state": state,
            **meta,
        }


class Call:
    """Pickled as a call of whatever ``function`` is, and then a BUILD of ``state``."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Persistent):
            return _reconstruct_persistent_obj, (value.meta,)
        if isinstance(value, nn.Module) and type(value).__module__.startswith("ganops."):
            config = getattr(value, "_kwargs", {})
            state = {**vars(value), "_init_args": (), "_init_kwargs": config}
            return _reconstruct_persistent_obj, (Persistent(type(value).__name__, state).meta,)
        return NotImplemented


def dumps(value: Any, protocol: int = 4) -> bytes:
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    modules = {name: types.ModuleType(name) for name in names}
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    modules["dnnlib.util"].EasyDict = EasyDict
    buffer = io.BytesIO()
    sys.modules.update(modules)
    try:
        _Pickler(buffer, protocol).dump(value)
    finally:
        for name in modules:
            del sys.modules[name]
    return buffer.getvalue()


def network(cls: type[nn.Module], kwargs: dict[str, Any], seed: int = 0) -> nn.Module:
    """One whose biases, noise and moving averages are random, too."""
    generator = torch.Generator().manual_seed(seed)
    result = cls(**kwargs)
    for tensor in [*result.parameters(), *(b for name, b in result.named_buffers() if name.endswith(("avg", "ema")))]:
        tensor.data += 0.1 * torch.rand(tensor.shape, generator=generator)
    result._kwargs = kwargs
    return result


def snapshot(generator: nn.Module, discriminator: nn.Module) -> dict[str, Any]:
    """What a training run of NVIDIA's saves."""
    return {
        "G": generator,
        "D": discriminator,
        "G_ema": generator,
        "augment_pipe": Persistent("AugmentPipe", {"_init_kwargs": {"xflip": 1}}),
        "training_set_kwargs": EasyDict(class_name="training.dataset.ImageFolderDataset", path="images.zip"),
    }


def generators() -> dict[str, nn.Module]:
    return {
        "stylegan2": network(stylegan2.Generator, GENERATOR2),
        "stylegan3": network(stylegan3.Generator, GENERATOR3),
    }


def storage_payload(
    tensor: Tensor, location: str = "cpu", count: int | None = None, kind: str = "FloatStorage"
) -> bytes:
    """The bytes of a tensor's storage, as torch.save wrote them before it used zip."""

    class StoragePickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if value is not reference:
                return None
            return "storage", getattr(torch, kind), "0", location, tensor.numel() if count is None else count, None

    reference = object()
    buffer = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(value, buffer, protocol=2)
    StoragePickler(buffer, protocol=2).dump(reference)
    pickle.dump(["0"], buffer, protocol=2)
    return buffer.getvalue() + tensor.numel().to_bytes(8, "little") + tensor.numpy().tobytes()
