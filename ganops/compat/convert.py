"""Networks of ``ganops.models`` as files: safetensors, which holds no code, and pickles for programs that want one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ._build import CONFIG, MODELS, NetworkConfig, model_class
from ._errors import CheckpointError
from ._records import PERSISTENCE_VERSION, PERSISTENT

METADATA = "ganops"
HINT = "safetensors is missing: pip install 'ganops[compat]'"


def config_of(network: nn.Module, kwargs: Mapping[str, Any] | None = None) -> NetworkConfig:
    """The class and arguments of a network of ``ganops.models``.

    Args:
        network: a loaded network, or one that was made with ``kwargs``.
        kwargs: its constructor's arguments, all by keyword. A loaded network knows them.

    Raises:
        TypeError: the network is of another class.
        ValueError: it was not loaded, and ``kwargs`` is None.
    """
    config = getattr(network, CONFIG, None)
    if kwargs is None and isinstance(config, NetworkConfig):
        return config
    model = next((name for name in MODELS if type(network) is model_class(name)), None)
    if model is None:
        raise TypeError(f"network must be one of ganops.models ({', '.join(MODELS)}), got {type(network).__name__}")
    if kwargs is None:
        raise ValueError("kwargs must be given, since this network was not loaded: its constructor's arguments")
    return NetworkConfig(model, dict(kwargs), "D" if model.endswith("Discriminator") else "G_ema")


def save_network(network: nn.Module, path: str | os.PathLike[str], kwargs: Mapping[str, Any] | None = None) -> None:
    """Write a network of ``ganops.models`` as a safetensors file, which :func:`load_network` reads.

    Args:
        network: its parameters and buffers are written, in their dtypes.
        path: the file to write.
        kwargs: its constructor's arguments, all by keyword; a loaded network knows them.

    Raises:
        TypeError, ValueError: see :func:`config_of`; the arguments are no JSON.
        ModuleNotFoundError: the package ``safetensors`` is missing.
        OSError: the file cannot be written.
    """
    safetensors = _safetensors()
    metadata = {"format": "pt", METADATA: config_of(network, kwargs).to_json()}
    # The format does not know tensors that share memory, as filters of several layers may.
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(tensors, path, metadata)


def load_network(path: str | os.PathLike[str]) -> nn.Module:
    """The network in a safetensors file of :func:`save_network`: on the CPU, in eval mode, requiring no gradients.

    Raises:
        CheckpointError: no such file, or its class, arguments and tensors do not fit; a ValueError.
        ModuleNotFoundError: the package ``safetensors`` is missing.
        OSError: it cannot be read.
    """
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(METADATA, "null")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no dict
        network = NetworkConfig.from_json(metadata).build(tensors)
    except (safetensors.SafetensorError, CheckpointError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    return network.eval().requires_grad_(False)


def save_network_pkl(network: nn.Module, path: str | os.PathLike[str], kwargs: Mapping[str, Any] | None = None) -> None:
    """Write a network of ``ganops.models`` as a pickle in the form of NVIDIA's.

    A generator is both "G" and "G_ema" in it, beside a "D" that is an empty module, because NVIDIA's loader wants all
    three. A discriminator is its "D". :func:`load_network_pkl` reads it without executing anything. NVIDIA's executes
    the source in such files; here that is one line, which imports the class from ganops: it must be installed there.

    Args:
        network, path, kwargs: as in :func:`save_network`.

    Raises:
        TypeError, ValueError: see :func:`config_of`.
        OSError: the file cannot be written.
    """
    config = config_of(network, kwargs)
    module, class_name = config.model.split(".")
    state = {name: value for name, value in vars(network).items() if name != CONFIG}
    meta = {
        "type": "class",
        "version": PERSISTENCE_VERSION,
        "module_src": f"from ganops.models.{module} import {class_name}\n",
        "class_name": class_name,
        "state": {**state, "_init_args": (), "_init_kwargs": config.kwargs},
    }
    # The call's function cannot be pickled where it cannot be imported, so the opcodes around (meta,) are put by hand.
    # Protocol 3 has no frames, which makes a pickle without its PROTO and STOP a part of another.
    function = pickle.GLOBAL + f"{PERSISTENT.module}\n{PERSISTENT.name}\n".encode()
    pickled = function + _opcodes((meta,)) + pickle.REDUCE
    if class_name == "Generator":
        memo = b"\1"  # of what is in it, nothing is needed any more; 0 takes the names
        again = pickle.BINGET + memo
        items = [("D", _opcodes(nn.Identity())), ("G_ema", pickled + pickle.BINPUT + memo), ("G", again)]
    else:
        items = [("D", pickled)]
    content = b"".join(_opcodes(name) + value + pickle.SETITEM for name, value in items)
    Path(path).write_bytes(_opcodes({}, begin=0) + content + pickle.STOP)


def _opcodes(value: Any, begin: int = 2) -> bytes:
    return pickle.dumps(value, protocol=3)[begin:-1]


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(HINT, name="safetensors") from error
    return safetensors
