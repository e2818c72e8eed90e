"""The import hook: serves recognised modules from ganops, and has functions replaced in others after their import."""

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, Protocol

from ._signatures import FUNCTIONS, MODULES, Match, match_module, path_of, top_level_names

# Where the codebase lacks them, these packages are made up, with the contents named or none.
PACKAGES = {"torch_utils": None, "torch_utils.ops": None, "op": "rosinality.op", "mmcv.ops": "mmcv.ops"}
FOREIGN = {"ganops", "numpy", "scipy", "torch", "torchvision", *sys.stdlib_module_names}
DEFINES = re.compile(rf"^\s*(def ({'|'.join(FUNCTIONS)}|_src_to_module)\(|class ModulatedConv2d\b)", re.MULTILINE)


class Session(Protocol):
    """What the hook asks and tells."""

    keep: frozenset[str]

    def served(self, module: ModuleType, own: ModuleSpec | None, replacement: str) -> None: ...
    def left(self, name: str, reason: str) -> None: ...
    def patch(self, module: ModuleType, source: str) -> Any: ...


def is_foreign(name: str) -> bool:
    """Whether a module belongs to a library that the hook has no business with."""
    return name.partition(".")[0] in FOREIGN


class OwnFile:
    """A codebase's own file of a module that is served from ganops; run when a name that only it has is asked for."""

    def __init__(self, spec: ModuleSpec | None, source: str) -> None:
        self.spec = spec
        self._names = top_level_names(source)
        self._module: ModuleType | None = None

    def module(self) -> ModuleType | None:
        if self._module is None and self.spec and self.spec.loader:
            self._module = importlib.util.module_from_spec(self.spec)
            self.spec.loader.exec_module(self._module)
        return self._module

    def __call__(self, name: str) -> Any:
        """The served module's ``__getattr__``."""
        if name in self._names and not name.startswith("__"):
            return getattr(self.module(), name)
        raise AttributeError(f"the module that ganops serves in place of this codebase's own has no {name!r}")


class ServedLoader(SourceFileLoader):
    """Runs a replacement's file under the name of what it replaces."""

    def __init__(self, name: str, replacement: str, session: Session, own: ModuleSpec | None, source: str) -> None:
        super().__init__(name, str(path_of(replacement)))
        self._replacement, self._session, self._own, self._source = replacement, session, own, source

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        own = OwnFile(self._own, self._source)
        vars(module)["__getattr__"] = own
        if "_own_file" in vars(module):
            vars(module)["_own_file"] = own.module
        self._session.served(module, self._own, self._replacement)


class Finder:
    """Comes first among the finders: asks the others, and changes what they find."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if is_foreign(fullname):
            return None
        spec = self._ask_others(fullname, path, target)
        source = source_of(spec)
        if spec is None or source is None:
            return spec
        if fullname == "mmcv.ops" and importlib.util.find_spec("mmcv._ext") is None:
            return self._serve(spec, source, "mmcv.ops")
        match = find_match(fullname, source)
        if match and fullname.rpartition(".")[2] in self._session.keep:
            self._session.left(fullname, "to be kept")
            return spec
        if match and match.replacement:
            return self._serve(spec, source, match.replacement)
        if match:
            self._session.left(fullname, match.reason)
        if DEFINES.search(source) and isinstance(spec.loader, SourceFileLoader):
            _after_import(spec.loader, lambda module: self._session.patch(module, source))
        return spec

    def _serve(self, own: ModuleSpec, source: str, replacement: str) -> ModuleSpec | None:
        return served_spec(own.name, replacement, self._session, own, source)

    def _ask_others(self, *question: Any) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self and not isinstance(finder, MissingFinder):
                spec = finder.find_spec(*question)
                if spec:
                    return spec
        return None


class MissingFinder:
    """Comes last: serves what the codebase refers to and has no file for."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = "torch_utils.ops" if fullname.endswith(".torch_utils.ops") else fullname
        if package in PACKAGES:
            contents = PACKAGES[package]
            if contents is None:
                return ModuleSpec(fullname, None, is_package=True)
            return served_spec(fullname, contents, self._session, None, "")
        replacement = default_for(fullname)
        if replacement is None or fullname.rpartition(".")[2] in self._session.keep:
            return None
        return served_spec(fullname, replacement, self._session, None, "")


def served_spec(
    name: str, replacement: str, session: Session, own: ModuleSpec | None, source: str
) -> ModuleSpec | None:
    loader = ServedLoader(name, replacement, session, own, source)
    is_package = replacement in PACKAGES.values()
    inside = (list(own.submodule_search_locations or []) if own else []) if is_package else None
    return importlib.util.spec_from_file_location(name, loader.path, loader=loader, submodule_search_locations=inside)


def find_match(name: str, source: str) -> Match | None:
    stem = name.rpartition(".")[2]
    try:
        return match_module(stem, source) if stem in MODULES else None
    except SyntaxError:  # the import will tell
        return None


def default_for(name: str) -> str | None:
    """What serves a module that has no file, by the package it is asked for in."""
    parent, _, stem = name.rpartition(".")
    family = "mmcv" if parent == "mmcv.ops" else "rosinality" if parent.rpartition(".")[2] == "op" else "nvlabs"
    nvlabs = f".{parent}".endswith(".torch_utils" if stem == "custom_ops" else ".torch_utils.ops")
    if stem not in MODULES or (family == "nvlabs" and not nvlabs):
        return None
    candidates = MODULES[stem]
    return next((c for c in candidates if c.startswith(f"{family}.")), candidates[0])


def source_of(spec: ModuleSpec | None) -> str | None:
    """The source of a module that is written in Python, unless it cannot be read."""
    get_source = getattr(spec and spec.loader, "get_source", None)
    try:
        return get_source(spec.name) if spec and get_source else None
    except (ImportError, OSError, SyntaxError, UnicodeDecodeError):
        return None


def _after_import(loader: Any, then: Callable[[ModuleType], Any]) -> None:
    """The loader is this module's alone, and keeps its type."""
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        then(module)

    loader.exec_module = exec_module
