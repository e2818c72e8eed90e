"""Networks as safetensors files: tensors, and in the metadata the class and its arguments as JSON. No code, either."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from ._build import CONFIG, MODELS, NetworkConfig, model_class
from ._errors import CheckpointError

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
    return NetworkConfig(model, dict(kwargs))


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
    config = config_of(network, kwargs)
    metadata = {"format": "pt", METADATA: json.dumps({"model": config.model, "kwargs": config.kwargs})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
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
        config = json.loads(metadata)
        if not isinstance(config, dict) or not isinstance(config.get("kwargs"), dict):
            raise CheckpointError("its metadata does not say which network of ganops it is")
        network = NetworkConfig(str(config.get("model")), config["kwargs"]).build(tensors)
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    return network.eval().requires_grad_(False)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(HINT, name="safetensors") from error
    return safetensors
