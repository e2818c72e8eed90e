"""Commands of ``python -m ganops``, one module each.

A module defines ``add_parser(subparsers)``, which adds its argparse parser and sets the default ``run`` to its
``run(args) -> int``, the exit status. Whatever is slow to import is imported inside ``run``.
"""

BAD_ARGUMENT, FAILED = 2, 1


class CommandError(Exception):
    """Ends a command: one line for the user and the exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
