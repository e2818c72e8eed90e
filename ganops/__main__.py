"""``python -m ganops <command>``: finds the commands in ``ganops.cli`` and runs one."""

import argparse
import importlib
import os
import pkgutil
import sys
from typing import NoReturn

from . import __version__, cli

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 and the signal's number, as a shell reports it


class Parser(argparse.ArgumentParser):
    """Reports a bad argument in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(cli.BAD_ARGUMENT, f"{self.prog}: error: {message} (see --help)\n")


def main(argv: list[str] | None = None) -> int:
    try:
        try:
            return run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return BROKEN_PIPE


def run(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m ganops", description="Commands of ganops.")
    parser.add_argument("--version", action="version", version=f"ganops {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for module in pkgutil.iter_modules(cli.__path__):
        importlib.import_module(f"{cli.__name__}.{module.name}").add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except cli.CommandError as error:
        print(f"{parser.prog} {args.command}: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
