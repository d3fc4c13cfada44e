"""Bytes that have left a pipe and are to be lost, until how many there were is on record."""

import contextlib
import logging
import os
import struct
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

# How far the file reached before, and where it is.
_HEADER = struct.Struct("<Q4088s")


class Limbo:
    """A file in memory that outlives this process: what died with bytes in it can be settled.

    It is empty, or says first which file is to reach how far, plus the bytes that follow. They
    get there by one system call, and nothing else is wrong for being done again.
    """

    def __init__(self, descriptor: int) -> None:
        """The descriptor stays the caller's."""
        self._descriptor = descriptor

    @classmethod
    def left_by(cls, keeper: int) -> Self:
        """The keeper's, after what a process before had in it has been settled.

        For -1, from a keeper that has none, one that dies with this process.
        """
        limbo = cls(keeper if keeper >= 0 else os.memfd_create("jobworker-limbo", os.MFD_CLOEXEC))
        try:
            limbo.settle()
        except OSError as error:
            log.error("a gap in a job's output is too short: %s", error.strerror)
            limbo.clear()
        return limbo

    def swallow(self, pipe: int, limit: int, path: Path, size: int) -> int:
        """Take up to `limit` bytes out of a pipe; `path`, of that size, is so much longer then.

        Returns the bytes taken, 0 at the end of the pipe. Raises BlockingIOError when the
        pipe is empty, and OSError; then no byte has been taken.
        """
        os.pwrite(self._descriptor, _HEADER.pack(size, os.fsencode(path)), 0)
        try:
            # First, as that may take room, and being cut again takes none.
            os.truncate(path, size + limit)
            return os.splice(
                pipe,
                self._descriptor,
                limit,
                offset_dst=_HEADER.size,
                flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE,
            )
        finally:
            self.settle()

    def settle(self) -> None:
        """Have the file reach as far as it is to, if there is one. Raises OSError."""
        taken = os.fstat(self._descriptor).st_size - _HEADER.size
        if taken >= 0:
            size, name = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, 0))
            # Its job may have been removed.
            with contextlib.suppress(FileNotFoundError):
                os.truncate(os.fsdecode(name.rstrip(b"\0")), size + taken)
        self.clear()

    def clear(self) -> None:
        """Forget what is in it."""
        os.ftruncate(self._descriptor, 0)
