"""What one ``install()`` changes, and how it is undone."""

import importlib
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import LazyLoader, module_from_spec
from types import FunctionType, ModuleType
from typing import Any

from . import _hook
from ._signatures import MODULES, has_modulated_conv2d_class, match_functions, path_of
from .served.rosinality.model import modulated_forward

MISSING = object()
MODULATED_CONV2D = "modulated_conv2d"
KEEPABLE = (MODULATED_CONV2D, *sorted(MODULES))


@dataclass(frozen=True)
class Entry:
    """One line of the report: ``state`` is "replaced", "patched" or "left alone"."""

    module: str
    state: str
    detail: str


class Session:
    """From install() to uninstall()."""

    def __init__(self, keep: Collection[str]) -> None:
        self.keep = frozenset(keep)
        self.entries: list[Entry] = []
        self._finders: tuple[Any, Any] = (_hook.Finder(self), _hook.MissingFinder(self))
        self._served: list[tuple[ModuleType, ModuleSpec | None]] = []
        self._changes: list[tuple[Any, str, Any]] = []
        self._originals: dict[int, tuple[Any, Any]] = {}  # id(replacement) -> (replacement, what it replaced)

    def start(self) -> None:
        sys.meta_path.insert(0, self._finders[0])
        sys.meta_path.append(self._finders[1])
        replaced: dict[int, Any] = {}
        for module, source in _loaded():
            try:
                replaced |= self._replace_in_place(module, source)
            except Exception as error:  # a module that waits for its first use is run by this
                self.left(_contents(module)["__name__"], f"its own file fails: {error}")
        _rebind(replaced, self._set)

    def stop(self) -> None:
        for finder in self._finders:
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
        for target, name, before in reversed(self._changes):
            _restore(target, name, before)
        taken = {key: before for key, (_, before) in self._originals.items()}
        held: list[Any] = []  # so that no id below is given to another object
        for module, own in self._served:
            held += vars(module).values()
            functions = {id(value): name for name, value in vars(module).items() if _is_defined_in(module, value)}
            _give_back(module, own)
            if own is not None and any(id(v) in functions for m in _modules() for v in _contents(m).values()):
                taken |= _own_functions(module, functions)
        _rebind(taken, setattr)

    def served(self, module: ModuleType, own: ModuleSpec | None, replacement: str) -> None:
        self._served.append((module, own))
        where = "" if own else "; the codebase has no such file"
        self.entries.append(Entry(module.__name__, "replaced", f"by ganops.compat.served.{replacement}{where}"))

    def left(self, name: str, reason: str) -> None:
        self.entries.append(Entry(name, "left alone", reason))

    def patch(self, module: ModuleType, source: str) -> dict[int, Any]:
        """Replace the known functions of a module that was just run; returns id(old) -> new."""
        replaced: dict[int, Any] = {}
        for name, match in match_functions(source).items():
            before = vars(module).get(name)
            if id(before) in self._originals or not callable(before):
                continue
            if name in self.keep or match.replacement is None:
                self.left(f"{module.__name__}.{name}", "to be kept" if name in self.keep else match.reason)
                continue
            served = importlib.import_module(f"{__package__}.served.{match.replacement}")
            replacement = _copy(getattr(served, name), module)
            self._replace(module, name, replacement)
            replaced[id(before)] = replacement
            self.entries.append(
                Entry(f"{module.__name__}.{name}", "patched", f"by ganops.compat.served.{match.replacement}")
            )
        if has_modulated_conv2d_class(source):
            self._patch_class(module)
        if callable(vars(module).get("_src_to_module")):
            self._patch_pickled_sources(module)
        return replaced

    def _patch_class(self, module: ModuleType) -> None:
        layer, name = vars(module)["ModulatedConv2d"], f"{module.__name__}.ModulatedConv2d"
        if MODULATED_CONV2D in self.keep:
            self.left(name, "to be kept")
            return
        self._set(layer, "forward", modulated_forward(layer.forward))
        self.entries.append(Entry(name, "patched", "its forward, by ganops.compat.served.rosinality.model"))

    def _patch_pickled_sources(self, persistence: ModuleType) -> None:
        """``torch_utils.persistence`` runs the source that comes with a pickle: no import, so it is told here."""
        load: Callable[[str], ModuleType] = vars(persistence)["_src_to_module"]

        def _src_to_module(src: str) -> ModuleType:
            module = load(src)
            self.patch(module, src)
            return module

        self._replace(persistence, "_src_to_module", _src_to_module)
        self.entries.append(Entry(persistence.__name__, "patched", "networks in pickles are patched as modules are"))

    def _replace_in_place(self, module: ModuleType, source: str) -> dict[int, Any]:
        """As importing it would have; returns id(old) -> new."""
        match, stem = _hook.find_match(module.__name__, source), module.__name__.rpartition(".")[2]
        if match is None or not match.replacement:
            if match:
                self.left(module.__name__, match.reason)
            return self.patch(module, source)
        if stem in self.keep or stem == "custom_ops":
            self.left(module.__name__, "to be kept" if stem in self.keep else "loaded already, and harmless")
            return {}
        # The replacement's file, run in the module's own namespace. Data and classes stay: others hold them.
        before = dict(vars(module))
        exec(compile(path_of(match.replacement).read_bytes(), path_of(match.replacement), "exec"), vars(module))
        replaced: dict[int, Any] = {}
        for name, after in list(vars(module).items()):
            old = before.get(name, MISSING)
            if old is after:
                continue
            if name.startswith("__") or not (old is MISSING or isinstance(old, FunctionType)):
                _restore(module, name, old)
                continue
            self._changes.append((module, name, old))
            if old is not MISSING:
                replaced[id(old)] = after
                self._originals[id(after)] = (after, old)
        self.entries.append(Entry(module.__name__, "replaced", f"in place by ganops.compat.served.{match.replacement}"))
        return replaced

    def _replace(self, target: Any, name: str, value: Any) -> None:
        self._originals[id(value)] = (value, getattr(target, name))
        self._set(target, name, value)

    def _set(self, target: Any, name: str, value: Any) -> None:
        self._changes.append((target, name, vars(target).get(name, MISSING)))
        setattr(target, name, value)


def _restore(target: Any, name: str, before: Any) -> None:
    if before is MISSING:
        delattr(target, name)
    else:
        setattr(target, name, before)


def _modules() -> list[ModuleType]:
    """The loaded modules that may be a codebase's."""
    loaded = list(sys.modules.items())
    return [module for name, module in loaded if isinstance(module, ModuleType) and not _hook.is_foreign(name)]


def _loaded() -> Iterator[tuple[ModuleType, str]]:
    """Those that were loaded from source, and what unpickled networks made theirs from."""
    for module in _modules():
        source = _hook.source_of(_contents(module).get("__spec__"))
        if source and (module.__name__.rpartition(".")[2] in MODULES or _hook.DEFINES.search(source)):
            yield module, source
        sources = _contents(module).get("_module_to_src_dict")
        if isinstance(sources, dict):
            yield from list(sources.items())


def _rebind(replaced: dict[int, Any], bind: Callable[[Any, str, Any], None]) -> None:
    """Names that other modules took by ``from ... import name``."""
    for module in _modules() if replaced else []:
        for name, value in list(_contents(module).items()):
            if id(value) in replaced:
                bind(module, name, replaced[id(value)])


def _contents(module: ModuleType) -> dict[str, Any]:
    """A module's names, without making a module run that waits for its first use."""
    names: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return names


def _is_defined_in(module: ModuleType, value: Any) -> bool:
    return isinstance(value, FunctionType | type) and value.__module__ == module.__name__


def _copy(function: Any, module: ModuleType) -> FunctionType:
    """One for each place, so that each can be taken back by itself."""
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__doc__, copy.__module__, copy.__annotations__ = function.__doc__, module.__name__, function.__annotations__
    return copy


def _give_back(module: ModuleType, own: ModuleSpec | None) -> None:
    """Make a served module the codebase's own again, which is run when it is next used; or remove it."""
    name = module.__name__
    parent = sys.modules.get(name.rpartition(".")[0])
    if own is None or own.loader is None:
        sys.modules.pop(name, None)
        if parent and vars(parent).get(name.rpartition(".")[2]) is module:
            delattr(parent, name.rpartition(".")[2])
        return
    vars(module).clear()
    vars(module).update(vars(module_from_spec(own)))
    own.loader = LazyLoader(own.loader)
    own.loader.exec_module(module)


def _own_functions(module: ModuleType, functions: dict[int, str]) -> dict[int, Any]:
    try:
        return {key: getattr(module, name) for key, name in functions.items() if hasattr(module, name)}
    except Exception as error:  # whatever a codebase's file does when it is run
        warnings.warn(
            f"{module.__name__} cannot be loaded again; what was imported from it remains ganops's: {error}",
            RuntimeWarning,
            stacklevel=4,
        )
        return {}
