"""Where a checkpoint comes from: a file, an open file or an https address. All of it is read into memory."""

from __future__ import annotations

import os
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, BinaryIO

from ._errors import CheckpointError

MAX_BYTES = 4 * 2**30
CHUNK_BYTES = 2**24
TIMEOUT_SECONDS = 60
Source = str | os.PathLike[str] | BinaryIO


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows no redirection away from https."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_https(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme != "https":
        raise CheckpointError(f"{url}: only https addresses are loaded")


def name_of(source: Source) -> str:
    """How messages call it."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "the checkpoint"))


def read(source: Source, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a checkpoint.

    Args:
        source: a path, an https address, or a file open for reading bytes.
        max_bytes: the most to read.

    Raises:
        CheckpointError: it is larger, or an address that is not https or cannot be loaded.
        OSError: a file cannot be read.
        TypeError: ``source`` is none of these.
    """
    if isinstance(source, str) and "://" in source:
        check_https(source)
        opener = urllib.request.build_opener(_HttpsOnly())
        try:
            with opener.open(source, timeout=TIMEOUT_SECONDS) as response:
                return _at_most(response, max_bytes, source)
        except (urllib.error.URLError, HTTPException, TimeoutError) as error:
            raise CheckpointError(f"{source}: cannot be loaded: {error}") from error
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            return _at_most(file, max_bytes, os.fspath(source))
    if not hasattr(source, "read"):
        raise TypeError(f"source must be a path, an https address or a binary file, got {type(source).__name__}")
    return _at_most(source, max_bytes, name_of(source))


def _at_most(file: Any, max_bytes: int, name: str) -> bytes:
    # Not at once: read(n) allocates n bytes, however few there are.
    chunks: list[bytes] = []
    size = 0
    while chunk := file.read(CHUNK_BYTES):
        if not isinstance(chunk, bytes):
            raise TypeError(f"{name} must be open for reading bytes, not text")
        size += len(chunk)
        if size > max_bytes:
            raise CheckpointError(f"{name}: larger than max_bytes = {max_bytes}")
        chunks.append(chunk)
    return b"".join(chunks)
