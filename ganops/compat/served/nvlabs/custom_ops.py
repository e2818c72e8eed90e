"""``torch_utils.custom_ops``: the operators are compiled already; other plugins of a codebase remain its own affair."""

from types import ModuleType
from typing import Any

verbosity = "brief"


def _own_file() -> ModuleType | None:
    """The codebase's custom_ops; the import hook knows it."""
    return None


def get_plugin(
    module_name: str, sources: list[str], headers: Any = None, source_dir: Any = None, **build_kwargs: Any
) -> Any:
    own = _own_file()
    if own is None:
        raise RuntimeError(
            f"get_plugin: {module_name!r} cannot be compiled, since this codebase has no custom_ops.py; "
            "the operators that ganops serves need no plugin"
        )
    own.verbosity = verbosity  # type: ignore[attr-defined]
    given = {"headers": headers, "source_dir": source_dir}
    extra = {name: value for name, value in given.items() if value is not None}
    return own.get_plugin(module_name, sources, **extra, **build_kwargs)
