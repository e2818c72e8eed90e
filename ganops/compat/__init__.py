"""ganops under existing codebases of the StyleGAN family, and their checkpoints without their code.

Without an edit: ``python -m ganops run gen_images.py --outdir=out ...``; or with one line, before the codebase's own
imports if possible::

    import ganops.compat

    ganops.compat.install()

docs/migration.md says what is replaced in which codebase; docs/checkpoints.md, which checkpoints
:func:`load_network_pkl` reads.
"""

from collections.abc import Collection

from ._errors import CheckpointError
from ._records import Record
from ._rosinality import load_rosinality
from ._session import KEEPABLE, Entry, Session
from .checkpoint import load_network_pkl, read_network_pkl
from .convert import load_network, save_network, save_network_pkl

__all__ = [
    "KEEPABLE",
    "CheckpointError",
    "Entry",
    "Record",
    "install",
    "load_network",
    "load_network_pkl",
    "load_rosinality",
    "read_network_pkl",
    "report",
    "save_network",
    "save_network_pkl",
    "uninstall",
]

_session: Session | None = None


def install(*, keep: Collection[str] = ()) -> None:
    """Serve the operators of ``torch_utils``, ``op``, ``basicsr.ops`` and ``mmcv.ops`` from ganops.

    A module is recognised by its last name and its functions' parameters, in its source; one that is not, is left
    alone, and so is everything else of the codebase. ``modulated_conv2d`` and rosinality's ``ModulatedConv2d.forward``
    are replaced in whatever module defines them, in unpickled networks, too. Modules that are loaded already are
    patched in place, and so are names that others took from them by ``from ... import``; other references, such as a
    default argument or an instance's attribute, stay as they are. Calling it again with the same keep does nothing.

    Args:
        keep: what is not to be replaced: names in :data:`KEEPABLE`.

    Raises:
        TypeError, ValueError: keep is a string, or names something else.
        RuntimeError: installed already with another ``keep``.
    """
    global _session
    if isinstance(keep, str):
        raise TypeError(f"keep must be a collection of names, got the string {keep!r}")
    unknown = [name for name in keep if name not in KEEPABLE]
    if unknown:
        raise ValueError(f"keep must hold names among {', '.join(KEEPABLE)}, got {unknown[0]!r}")
    if _session is None:
        session = Session(keep)
        session.start()
        _session = session
    elif _session.keep != frozenset(keep):
        raise RuntimeError(f"installed already with keep={sorted(_session.keep)}; call uninstall() first")


def uninstall() -> None:
    """Undo :func:`install`: whatever was patched is restored, and modules that were served become the codebase's own.

    Those are run when they are next used. Does nothing where nothing is installed.
    """
    global _session
    if _session is not None:
        _session.stop()
        _session = None


def report() -> list[Entry]:
    """What was replaced so far, what was left alone, and why; nothing where nothing is installed."""
    return list(_session.entries) if _session else []
