"""Network pickles of NVIDIA's StyleGAN codebases, loaded without executing anything that is in them.

Such a pickle holds the source code of its networks and calls to run it. Here it is read as data (``_machine``,
``_records``): class names, constructor arguments and tensors; networks are then those of ``ganops.models``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from typing import Any

import torch

from . import _source
from ._build import build_record
from ._errors import CheckpointError, shortened
from ._records import Record, read_pickle
from ._source import MAX_BYTES, Source

TENSORFLOW_NETWORK = "dnnlib.tflib.network.Network"
TENSORFLOW_HINT = """is a TensorFlow pickle of StyleGAN or StyleGAN2; convert it once, with legacy.py of
NVlabs/stylegan3: python legacy.py --source=OLD.pkl --dest=NEW.pkl; then load NEW.pkl"""
UNFIT_HINT = "networks=[...] loads others alone, read_network_pkl gives tensors as they are"
ZIP_MAGIC = b"PK\x03\x04"
ZIP_HINT = "is a torch.save or zip file, no network pickle; for rosinality's see ganops.compat.load_rosinality"


def read_network_pkl(source: Source, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a network pickle as data; executes nothing.

    Args:
        source: a path, an https address, or a file open for reading bytes.
        max_bytes: the most to read.

    Returns:
        What it holds by name, with an inert :class:`Record` for each object of a class. A record of a network has
        ``init_args``, ``init_kwargs`` and ``state_dict()``, with all tensors on the CPU.

    Raises:
        CheckpointError: it is damaged, or no network pickle, or names anything beyond data; a ValueError.
        OSError: it cannot be read.
    """
    name = _source.name_of(source)
    data = _source.read(source, max_bytes)
    if data.startswith(ZIP_MAGIC):
        raise CheckpointError(f"{name}: {ZIP_HINT}")
    try:
        content = read_pickle(data)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    parts = content if isinstance(content, tuple) else (content,)
    if any(isinstance(part, Record) and part.class_name == TENSORFLOW_NETWORK for part in parts):
        raise CheckpointError(f"{name}: {' '.join(TENSORFLOW_HINT.split())}")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{name}: holds a {type(content).__name__}, expected a dict of networks")
    return content


def load_network_pkl(
    source: Source,
    networks: Collection[str] | None = None,
    *,
    execute_embedded_source: bool = False,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """Load the networks of an official pickle: StyleGAN2-ADA's and StyleGAN3's G, D and G_ema.

    Nothing that the file contains is executed. Networks become instances of ``ganops.models`` on the CPU, with
    ``requires_grad`` and ``training`` as they were saved; their tensors must be exactly those of the model. Objects
    that ganops does not know, such as ``augment_pipe``, become inert records.

    Args:
        source: a path, an https address, or a file open for reading bytes.
        networks: names of those to make, such as ["G_ema"]; the rest stay records. Default: all that ganops knows.
        execute_embedded_source: run the source code in the file, as NVIDIA's loader does, and return instances of its
            own classes. **Whoever wrote the file then runs what they like on this machine.** The file's codebase
            (``torch_utils``, ``dnnlib``) must be importable.
        max_bytes: the most to read.

    Returns:
        What the pickle holds by name.

    Raises:
        CheckpointError: it is damaged, of another kind, or asks for anything but data; a ValueError.
        OSError: it cannot be read.
    """
    if execute_embedded_source:
        loaded: dict[str, Any] = _ExecutingUnpickler(io.BytesIO(_source.read(source, max_bytes))).load()
        return loaded
    content = read_network_pkl(source, max_bytes)
    built: dict[int, Any] = {}  # what is one object in the pickle stays one
    for key, value in content.items():
        if isinstance(value, Record) and (networks is None or key in networks):
            try:
                content[key] = built[id(value)] = built.get(id(value)) or build_record(value, key)
            except CheckpointError as error:
                raise CheckpointError(f"{_source.name_of(source)}: {shortened(key)}: {error} ({UNFIT_HINT})") from error
    return content


class _ExecutingUnpickler(pickle.Unpickler):
    """Python's own: runs whatever a pickle says. Only storages differ, which are loaded onto the CPU."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda data: torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
        return super().find_class(module, name)
