"""A pickle machine that has nothing to call.

A pickle is a program for a stack machine. Python's own machine imports what the program names and calls it. This one
knows data, and names: a name is inert, and what a program wants called goes to a ``Constructors`` object, which builds
the few things that checkpoints consist of and refuses the rest. ``pickletools`` decodes the opcodes.

Work and memory are bounded by the size of the file: sizes are checked before anything is read, no value is copied
except against ``Budget``, and keys of dictionaries are scalars, because the hash of nested tuples can take for ever.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ._errors import CheckpointError

MAX_INT_BITS = 128
MAX_LINE = 4096
"""Bytes of an argument that ends with its line: a name or a number."""
MAX_NAME = 500
"""Characters of a global's name, or of an attribute's."""

NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXT = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
SCALARS = (str, int, float, bytes, type(None))


@dataclass(frozen=True)
class Name:
    """What a pickle calls a global: never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Constructors(Protocol):
    """What the machine asks to build things. Each method returns an inert value or raises CheckpointError."""

    def find(self, name: Name) -> Any: ...
    def call(self, function: Any, args: tuple[Any, ...]) -> Any: ...
    def new(self, cls: Any, args: tuple[Any, ...]) -> Any: ...
    def set_state(self, value: Any, state: Any) -> None: ...
    def persistent(self, key: Any) -> Any: ...


class Budget:
    """Bytes that may still be copied: as many as the file has, since a file holds each of its tensors once."""

    def __init__(self, size: int) -> None:
        self.left = size

    def spend(self, size: int, what: str) -> None:
        self.left -= size
        if self.left < 0:
            raise CheckpointError(f"its {what} are larger than the file that holds them")


class BoundedReader:
    """A file in memory, for ``pickletools``: knows before reading what is not there."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        left = len(self.data) - self.position
        if not 0 <= size <= left:
            raise CheckpointError(f"at byte {self.position}, {size} bytes are declared and {left} are left: truncated?")
        self.position += size
        return self.data[self.position - size : self.position]

    def readline(self) -> bytes:
        end = self.data.find(b"\n", self.position, self.position + MAX_LINE)
        if end < 0:
            raise CheckpointError(f"at byte {self.position}, a line has no end: truncated?")
        return self.read(end + 1 - self.position)


class Machine:
    """Runs the pickle at the reader's position, which then stands behind its STOP."""

    def __init__(self, reader: BoundedReader, constructors: Constructors) -> None:
        self.reader = reader
        self.constructors = constructors
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        position, opcode = self.reader.tell(), "the first opcode"
        try:
            for info, argument, at in pickletools.genops(self.reader):  # type: ignore[arg-type]
                position, opcode = at or position, info.name
                operation = OPERATIONS.get(opcode)
                if operation is None:
                    raise CheckpointError("this opcode has no place in a checkpoint")
                operation(self, argument)
            (value,) = self.stack
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, RuntimeError) as error:
            raise CheckpointError(f"byte {position} of the pickle, {opcode}: {_reason(error)}") from None
        if self.marks:
            raise CheckpointError("the pickle ends with a mark on its stack")
        return value

    def push(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            raise CheckpointError(f"an integer has {value.bit_length()} bits")
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise CheckpointError("a mark is where a value should be")
        return self.stack.pop()

    def top(self) -> Any:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise CheckpointError("a mark is where a value should be")
        return self.stack[-1]

    def pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def frame(self, size: int) -> None:
        left = len(self.reader.data) - self.reader.position
        if size > left:
            raise CheckpointError(f"a frame of {size} bytes is declared and {left} are left: truncated?")

    def global_name(self, argument: str) -> None:
        self.find(*argument.split(" ", 1))

    def stack_global(self, _: None) -> None:
        module, name = self.pop_many(2)
        self.find(module, name)

    def find(self, module: Any, name: Any) -> None:
        if not all(isinstance(part, str) and len(part) <= MAX_NAME for part in (module, name)):
            raise CheckpointError("a global's name is no text, or a long one")
        self.push(self.constructors.find(Name(module, name)))

    def reduce(self, _: None) -> None:
        function, args = self.pop_many(2)
        self.push(self.constructors.call(function, _tuple(args)))

    def new(self, _: None) -> None:
        cls, args = self.pop_many(2)
        self.push(self.constructors.new(cls, _tuple(args)))

    def build(self, _: None) -> None:
        state = self.pop()
        self.constructors.set_state(self.top(), state)

    def set_items(self, items: Sequence[Any]) -> None:
        target = _exactly(self.top(), dict)
        if len(items) % 2:
            raise CheckpointError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def extend_list(self, items: Sequence[Any]) -> None:
        _exactly(self.top(), list).extend(items)

    def extend_set(self, items: Sequence[Any]) -> None:
        _exactly(self.top(), set).update(map(_key, items))

    def put(self, index: int) -> None:
        self.memo[index] = self.top()


def _tuple(args: Any) -> tuple[Any, ...]:
    if not isinstance(args, tuple):
        raise CheckpointError(f"the arguments of a call are a {type(args).__name__}, not a tuple")
    return args


def _exactly(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(f"a {kind.__name__} is expected, not a {type(value).__name__}")
    return value


def _key(value: Any) -> Any:
    if not isinstance(value, SCALARS):
        raise CheckpointError(f"a {type(value).__name__} is used as a key")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "the stack is empty"
    if isinstance(error, KeyError):
        return f"nothing is memoized as {error}"
    return str(error) or type(error).__name__


def _dict(machine: Machine, _: None) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    machine.set_items(items)


Operation = Callable[[Machine, Any], Any]

OPERATIONS: dict[str, Operation] = {
    "PROTO": lambda m, a: None,
    "STOP": lambda m, a: None,
    "FRAME": Machine.frame,
    "MARK": lambda m, a: m.marks.append(len(m.stack)),
    "POP_MARK": lambda m, a: m.pop_to_mark(),
    "POP": lambda m, a: m.pop(),
    "DUP": lambda m, a: m.push(m.top()),
    "LIST": lambda m, a: m.push(m.pop_to_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.pop_to_mark())),
    "DICT": _dict,
    "FROZENSET": lambda m, a: m.push(frozenset(map(_key, m.pop_to_mark()))),
    "ADDITEMS": lambda m, a: m.extend_set(m.pop_to_mark()),
    "APPEND": lambda m, a: m.extend_list(m.pop_many(1)),
    "APPENDS": lambda m, a: m.extend_list(m.pop_to_mark()),
    "SETITEM": lambda m, a: m.set_items(m.pop_many(2)),
    "SETITEMS": lambda m, a: m.set_items(m.pop_to_mark()),
    "PUT": Machine.put,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "MEMOIZE": lambda m, a: m.put(len(m.memo)),
    "GET": lambda m, a: m.push(m.memo[a]),
    "BINGET": lambda m, a: m.push(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.push(m.memo[a]),
    "GLOBAL": Machine.global_name,
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.reduce,
    "NEWOBJ": Machine.new,
    "BUILD": Machine.build,
    "BINPERSID": lambda m, a: m.push(m.constructors.persistent(m.pop())),
    **{name: Machine.push for name in NUMBERS + TEXT + BYTES},
    **{name: lambda m, a, value=value: m.push(value) for name, value in CONSTANTS.items()},  # type: ignore[misc]
    **{name: lambda m, a, make=make: m.push(make()) for name, make in EMPTY_CONTAINERS.items()},  # type: ignore[misc]
    **{name: lambda m, a, n=n: m.push(m.pop_many(n)) for name, n in TUPLES.items()},  # type: ignore[misc]
}
"""Not here: EXT (a registry of the process), PERSID, INST, OBJ, NEWOBJ_EX (calls nothing official makes), buffers out
of the file, and byte strings of Python 2."""
