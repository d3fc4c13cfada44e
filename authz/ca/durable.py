"""Writes files that are there whole or not at all, also after a crash."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def create(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file; it has its mode from the beginning.

    Raises:
        FileExistsError: It is there already, and stays as it is.
        OSError: It cannot be written.
    """
    with _written(path, content, mode) as draft:
        # Unlike rename(2), link(2) does not replace what is there.
        os.link(draft, path)
    _sync(path.parent)


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file in place of what may be there; readers see the old content or the new.

    Raises:
        OSError: It cannot be written.
    """
    with _written(path, content, mode) as draft:
        draft.rename(path)
    _sync(path.parent)


@contextlib.contextmanager
def _written(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    # fsync(2): that a name is in its directory is made durable by the directory's own sync.
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
