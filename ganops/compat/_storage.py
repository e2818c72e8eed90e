"""The bytes of one tensor storage: a torch.save file of the kind before zip, which is how pickled tensors hold them.

Such a file is five pickles (a magic number, a version, facts of the machine, a reference to a storage, a list of keys),
then for each key the number of elements, as int64, and the elements.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._errors import CheckpointError, shortened
from ._machine import BoundedReader, Machine, Name

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
ZIP_MAGIC = b"PK"
COUNT_BYTES = 8
MAX_DIMENSIONS = 8

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGES.values()}


def sizes(value: Any) -> tuple[int, ...]:
    """A short tuple of integers that are not negative and whose product is no long number, or CheckpointError."""
    fits = isinstance(value, tuple) and len(value) <= MAX_DIMENSIONS
    fits = fits and all(isinstance(n, int) and 0 <= n <= sys.maxsize for n in value)
    if not fits or math.prod(max(n, 1) for n in value) > sys.maxsize:
        raise CheckpointError("a size or stride is no short tuple of small integers")
    return tuple(value)


@dataclass(frozen=True)
class Reference:
    """What a file says of its storage. The device where it was is of no interest."""

    dtype: torch.dtype
    key: str
    count: int


class StorageConstructors:
    """Knows nothing but a storage's type and its reference: see ``_machine.Constructors``."""

    def find(self, name: Name) -> Any:
        if name.module != "torch" or name.name not in STORAGES:
            raise CheckpointError(f"a tensor's storage names {shortened(str(name))}; refused")
        return name

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        raise CheckpointError(f"a tensor's storage calls {shortened(str(function))}; refused")

    def new(self, cls: Any, args: tuple[Any, ...]) -> Any:
        raise CheckpointError(f"a tensor's storage makes an object of {shortened(str(cls))}; refused")

    def set_state(self, value: Any, state: Any) -> None:
        raise CheckpointError(f"a tensor's storage sets the state of a {type(value).__name__}; refused")

    def persistent(self, key: Any) -> Reference:
        match key:
            case ("storage", Name(name=kind), str(name), str(), int(count), None):
                return Reference(STORAGES[kind], name, count)
        raise CheckpointError("a tensor's storage has a reference of another form")


def read(payload: bytes) -> Tensor:
    """The elements of a storage as a 1-D tensor on the CPU, wherever it was when it was saved.

    Raises:
        CheckpointError: the payload is of another form, or its sizes contradict each other.
    """
    if payload.startswith(ZIP_MAGIC):
        raise CheckpointError("a tensor's storage is a zip archive, which no pickle of tensors holds; refused")
    reader = BoundedReader(payload)
    magic, version, system, reference, keys = (Machine(reader, StorageConstructors()).run() for _ in range(5))
    if magic != MAGIC or version != VERSION or not isinstance(system, dict):
        raise CheckpointError("a tensor's storage does not begin as a torch.save file does")
    if system.get("little_endian") is not True:
        raise CheckpointError("a tensor's storage was saved on a big-endian machine, which is not supported")
    if not isinstance(reference, Reference) or keys != [reference.key]:
        raise CheckpointError("a tensor's storage has a reference of another form")
    dtype, count = reference.dtype, reference.count
    stored = int.from_bytes(reader.read(COUNT_BYTES), "little", signed=True)
    expected = count * dtype.itemsize
    left = len(payload) - reader.tell()
    if stored != count or left != expected:
        raise CheckpointError(f"a storage declares {stored} elements ({expected} bytes), and has {left} bytes")
    if not count:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # a byte may hold anything, a bool may not
        return torch.frombuffer(bytearray(payload[-left:]), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(payload[-left:]), dtype=dtype)
