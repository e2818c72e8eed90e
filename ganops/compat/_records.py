"""What a network pickle consists of, as data: tensors, numbers, and inert records of the objects that it holds."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from . import _storage
from ._errors import CheckpointError, shortened
from ._machine import MAX_NAME, BoundedReader, Budget, Machine, Name

PERSISTENCE_VERSION = 6
PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")
INERT_PACKAGES = (
    *("torch.nn", "torch_utils", "training", "dnnlib", "ganops.models"),
    *("timm", "pg_modules", "feature_networks"),  # discriminators on pretrained features
)
"""Packages whose classes network pickles hold beside persistent ones. Objects of such a class become records."""

MAX_DEPTH, MAX_MODULES = 32, 4000
MAX_ENTRIES = 1000
"""Parameters, buffers or submodules of one module."""
NUMBER_DTYPE = re.compile("[<>|=]?[biuf][1248]")


@dataclass(eq=False, repr=False)
class Record:
    """An object that a pickle describes, never made: the name of its class, and its state.

    ``source`` is the text of the module that defines the class, where the pickle embeds it; it is not run.
    """

    class_name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    source: str | None = None

    @property
    def init_args(self) -> tuple[Any, ...]:
        """Positional arguments that its constructor was called with, where the state has them."""
        args = self.state.get("_init_args", ())
        return args if isinstance(args, tuple) else ()

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Keyword arguments that its constructor was called with, where the state has them."""
        kwargs = self.state.get("_init_kwargs", {})
        return kwargs if isinstance(kwargs, dict) else {}

    @property
    def children(self) -> dict[str, Record]:
        """Its submodules by name, if it is a module."""
        modules = self._table("_modules")
        return {name: module for name, module in modules.items() if isinstance(module, Record)}

    def modules(self) -> Iterator[tuple[str, Record]]:
        """It and all modules below it, with the prefix of their names in a state_dict.

        Raises:
            CheckpointError: they are nested more deeply than any network's, or too many.
        """
        waiting, count = [("", self, 0)], 0
        while waiting:
            prefix, record, depth = waiting.pop()
            count += 1
            if depth > MAX_DEPTH or count > MAX_MODULES:
                raise CheckpointError(f"more than {MAX_DEPTH} modules inside one another, or {MAX_MODULES} in all")
            yield prefix, record
            inner = [(f"{prefix}{name}.", child, depth + 1) for name, child in record.children.items()]
            waiting += reversed(inner)

    def state_dict(self) -> dict[str, Tensor]:
        """Its parameters and persistent buffers by name, as ``nn.Module.state_dict(keep_vars=True)`` gives them."""
        tensors: dict[str, Tensor] = {}
        for prefix, record in self.modules():
            hidden = record.state.get("_non_persistent_buffers_set", frozenset())
            if not isinstance(hidden, set | frozenset):
                raise CheckpointError(f"_non_persistent_buffers_set of {shortened(record.class_name)} is no set")
            buffers = {name: t for name, t in record._table("_buffers").items() if name not in hidden}
            for name, tensor in {**record._table("_parameters"), **buffers}.items():
                if isinstance(tensor, Tensor):
                    tensors[f"{prefix}{name}"] = tensor
        return tensors

    def _table(self, name: str) -> dict[str, Any]:
        table: Any = self.state.get(name, {})
        if not isinstance(table, dict) or len(table) > MAX_ENTRIES or not all(map(_is_name, table)):
            raise CheckpointError(f"{name} of {shortened(self.class_name)} is no dict of up to {MAX_ENTRIES} names")
        return table

    def __repr__(self) -> str:
        shown = [*map(_brief, self.init_args), *(f"{key}={_brief(value)}" for key, value in self.init_kwargs.items())]
        return f"<inert record of {self.class_name}({', '.join(shown)})>"


def _is_name(key: object) -> bool:
    return isinstance(key, str) and len(key) <= MAX_NAME


def _brief(value: object) -> str:
    if isinstance(value, bool | int | float | str | type(None)):
        return shortened(repr(value))[1:-1]
    return f"<{type(value).__name__}>"


class NetworkConstructors:
    """Builds what network pickles hold: see ``_machine.Constructors``. ``budget`` bounds the bytes of its tensors."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.calls: dict[Name, Callable[..., Any]] = {
            PERSISTENT: self.persistent_object,
            Name("collections", "OrderedDict"): OrderedDict,
            Name("builtins", "set"): self.set_of,
            Name("torch", "Size"): _storage.sizes,
            Name("torch", "device"): lambda *args: Record("torch.device", args),
            Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            Name("torch._utils", "_rebuild_parameter"): rebuild_parameter,
            Name("torch.storage", "_load_from_bytes"): self.storage,
            Name("numpy", "dtype"): number_dtype,
        }
        for package in ("numpy.core", "numpy._core"):
            self.calls[Name(f"{package}.multiarray", "scalar")] = self.scalar
            self.calls[Name(f"{package}.multiarray", "_reconstruct")] = empty_array
            self.calls[Name(f"{package}.numeric", "_frombuffer")] = self.array
        self.classes = {Name("dnnlib.util", "EasyDict"): dict, Name("collections", "OrderedDict"): OrderedDict}

    def find(self, name: Name) -> Any:
        """A name that may be called or made, a dtype, or a refusal."""
        if name.module == "torch" and name.name in _storage.DTYPES:
            return _storage.DTYPES[name.name]
        known = name in self.calls or name in self.classes or name == Name("numpy", "ndarray")
        if not known and not _inert(name):
            raise CheckpointError(f"it names {shortened(str(name))}, which is no part of a network; refused")
        return name

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        constructor = self.calls.get(function) if isinstance(function, Name) else None
        if constructor is None:
            raise CheckpointError(f"it calls {shortened(str(function))}; refused")
        if constructor is OrderedDict and args:
            raise CheckpointError("it makes an OrderedDict from items; refused")
        return constructor(*args)

    def new(self, cls: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(cls, Name):
            raise CheckpointError(f"it makes an object of a {type(cls).__name__}; refused")
        if cls in self.classes and not args:
            return self.classes[cls]()
        if not _inert(cls):
            raise CheckpointError(f"it makes an object of {shortened(str(cls))}; refused")
        return Record(str(cls), args)

    def set_state(self, value: Any, state: Any) -> None:
        if isinstance(value, Record) and isinstance(state, dict):
            value.state = state
        elif isinstance(value, dict):
            pass  # attributes of an OrderedDict, such as _metadata of a state_dict
        elif isinstance(value, np.dtype):
            set_byte_order(value, state)
        elif isinstance(value, np.ndarray):
            self.fill(value, state)
        else:
            raise CheckpointError(f"it sets the state of a {type(value).__name__}; refused")

    def persistent(self, key: Any) -> Any:
        raise CheckpointError("it refers to an object outside the pickle; refused")

    def persistent_object(self, meta: Any) -> Record:
        """A record of NVIDIA's torch_utils.persistence: class name, state, and source that is not run."""
        if not isinstance(meta, dict) or meta.get("type") != "class":
            raise CheckpointError("a persistence record has another type than 'class'")
        if meta.get("version") != PERSISTENCE_VERSION:
            version = _brief(meta.get("version"))
            raise CheckpointError(f"a persistence record has version {version}, expected {PERSISTENCE_VERSION}")
        class_name, state, source = (meta.get(key) for key in ("class_name", "state", "module_src"))
        if not isinstance(class_name, str) or not isinstance(state, dict) or not isinstance(source, str):
            raise CheckpointError("a persistence record lacks its class_name, state or module_src")
        return Record(class_name, state=state, source=source)

    def set_of(self, items: Any = ()) -> set[str]:
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise CheckpointError("a set has other items than text")
        self.budget.spend(len(items), "sets")
        return set(items)

    def storage(self, payload: Any) -> Tensor:
        if not isinstance(payload, bytes):
            raise CheckpointError(f"a tensor's storage is a {type(payload).__name__}, expected bytes")
        self.budget.spend(len(payload), "tensors")
        return _storage.read(payload)

    def array(self, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
        """A numpy array of protocol 5."""
        if not isinstance(data, bytes | bytearray) or not isinstance(dtype, np.dtype) or order not in ("C", "F"):
            raise CheckpointError("a numpy array has no bytes, dtype or order")
        self.budget.spend(len(data), "arrays")
        return np.frombuffer(data, dtype).reshape(_storage.sizes(shape), order=order).copy()

    def fill(self, array: np.ndarray[Any, Any], state: Any) -> None:
        """A numpy array of the protocols below: made empty, filled by its state."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("a numpy array has a state of another form")
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes) or not isinstance(dtype, np.dtype) or not isinstance(fortran, bool):
            raise CheckpointError("a numpy array has no bytes, dtype or order")
        self.budget.spend(len(data), "arrays")
        array.__setstate__((1, _storage.sizes(shape), dtype, fortran, data))  # type: ignore[arg-type]

    def scalar(self, dtype: Any, data: Any) -> bool | int | float:
        if not isinstance(dtype, np.dtype) or not isinstance(data, bytes) or len(data) != dtype.itemsize:
            raise CheckpointError("a numpy number has no dtype, or bytes of another length")
        number: bool | int | float = np.frombuffer(data, dtype)[0].item()
        return number


def _inert(name: Name) -> bool:
    return name.name.isidentifier() and any(name.module == p or name.module.startswith(f"{p}.") for p in INERT_PACKAGES)


def number_dtype(text: Any, *_: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or not NUMBER_DTYPE.fullmatch(text):
        raise CheckpointError(f"numpy dtype {shortened(text)} is no number")
    return np.dtype(text, align=False, copy=True)


def set_byte_order(dtype: np.dtype[Any], state: Any) -> None:
    order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
    if order not in ("<", ">", "|", "=") or state[2:] != (None, None, None, -1, -1, 0):
        raise CheckpointError("a numpy dtype has a state of another form")
    dtype.__setstate__((3, *state[1:]))  # type: ignore[attr-defined]


def empty_array(cls: Any, *_: Any) -> np.ndarray[Any, Any]:
    if cls != Name("numpy", "ndarray"):
        raise CheckpointError(f"it makes an array of {shortened(str(cls))}; refused")
    return np.empty((0,), np.int8)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage. It may not be larger, as an expanded tensor would be."""
    if not isinstance(storage, Tensor) or not isinstance(offset, int):
        raise CheckpointError("a tensor has no storage or offset")
    size, stride = _storage.sizes(size), _storage.sizes(stride)
    if len(size) != len(stride) or offset < 0:
        raise CheckpointError(f"a tensor has size {list(size)}, stride {list(stride)}, offset {offset}")
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if numel > storage.numel() or (numel and last >= storage.numel()):
        raise CheckpointError(f"a tensor of size {list(size)} is larger than its storage of {storage.numel()} elements")
    return storage.as_strided(size, stride, offset)


def rebuild_parameter(data: Any, requires_grad: Any, *_: Any) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise CheckpointError("a parameter is no tensor")
    return nn.Parameter(data, bool(requires_grad) and data.is_floating_point())


def read_pickle(data: bytes) -> Any:
    """The value of a network pickle, in records. Raises CheckpointError; executes nothing."""
    reader = BoundedReader(data)
    value = Machine(reader, NetworkConstructors(Budget(len(data)))).run()
    if left := len(data) - reader.tell():
        raise CheckpointError(f"{left} bytes follow the end of the pickle")
    return value
