"""stdin, stdout and stderr as they may be: closed, full, or with nobody at the other end.

What is closed when a process starts is the next descriptor that it opens: then
a sentence meant for stderr goes into a socket. So nothing else may run before
`take_over`.
"""

import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

from jobworker.cli.errors import CliError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = 0, 1, 2
NAMES: Final = {STDIN: "stdin", STDOUT: "stdout", STDERR: "stderr"}


class CannotWrite(CliError):
    """stdout, or a job's stderr, takes no more, such as for a full disk."""


def cannot_write(descriptor: int, error: OSError) -> CannotWrite:
    """Return the error to raise when a write to stdout or stderr has failed."""
    return CannotWrite(f"cannot write the output to {NAMES[descriptor]}: {error.strerror}")


class _Stdout(io.FileIO):
    """Raises CannotWrite once, or BrokenPipeError, and is quiet from then on.

    Python flushes stdout once more when it ends, whatever became of it.
    """

    _broken = False

    def write(self, data: "ReadableBuffer", /) -> int:
        if self._broken:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self._broken = True
            raise
        except OSError as error:
            self._broken = True
            raise cannot_write(STDOUT, error) from error


class _Stderr(io.FileIO):
    """Drops what cannot be written: there is no other place to tell of it."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def take_over() -> None:
    """Put the standard streams into a state in which they can be used, whatever they were."""
    for descriptor in NAMES:
        if not _is_open(descriptor):
            # Reading finds the end, writing fails, as it would if it were closed.
            opened = os.open(os.devnull, os.O_RDONLY)
            assert opened == descriptor  # noqa: S101 - open(2): the lowest that is free
            os.set_inheritable(descriptor, True)
    # Of one that was closed Python makes None.
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _text(_Stdout(STDOUT, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(STDERR, "w", closefd=False), sys.stderr)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    """A text stream over `raw`, with the encoding of the one in whose place it comes."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors=before.errors if before else "backslashreplace",
        line_buffering=True,
    )
