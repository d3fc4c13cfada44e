"""What a job has been sent as its input: kept exactly, whatever dies.

An inbox is a file, in memory or on disk. Its size says how much has been received,
the position of its descriptor how much of that has been handed on to the job, and
its mode whether there will be more. All three are the kernel's, and change within
one system call together with the bytes: the keeper has the same open file (open(2),
"open file description"), so the next supervisor finds it as this one left it.
"""

import os
import stat
from pathlib import Path

from jobworker.supervisor.host.holes import punch
from jobworker.supervisor.keeper.program import in_memory

_PAGE = os.sysconf("SC_PAGESIZE")
_COMPLETE = 0o400


class Inbox:
    """Owns the descriptor of such a file. Offsets are in bytes, from the first ever received."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._forgotten = 0

    @classmethod
    def new(cls, stored_at: Path | None = None) -> "Inbox":
        """An empty one, on disk where it says so. Raises OSError."""
        if stored_at is None:
            return cls(in_memory("jobworker-input", b""))
        stored_at.parent.mkdir(exist_ok=True)
        return cls(os.open(stored_at, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    @property
    def received(self) -> int:
        """How much has been received."""
        return os.fstat(self.descriptor).st_size

    @property
    def handed_on(self) -> int:
        """How much of that the job has got."""
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)

    @property
    def complete(self) -> bool:
        """Whether nothing more will be received."""
        return stat.S_IMODE(os.fstat(self.descriptor).st_mode) == _COMPLETE

    def put(self, offset: int, data: bytes) -> int:
        """Append what of `data`, which begins at `offset`, is new; returns how much there is now.

        Raises OSError, as for a full disk, when there is no room for some of it.
        """
        received = self.received
        data = data[received - offset :]
        while data:
            written = os.pwrite(self.descriptor, data, received)
            received += written
            data = data[written:]
        return received

    def end(self) -> None:
        """That was all."""
        os.fchmod(self.descriptor, _COMPLETE)

    def hand_on(self, sink: int) -> bool:
        """Move as much to the sink as it takes now (sendfile(2)); whether anything is left.

        Raises BlockingIOError when it takes nothing, and OSError when it never will.
        """
        received = self.received
        left = received - self.handed_on
        if left:
            os.sendfile(sink, self.descriptor, None, left)
            left = received - self.handed_on
        return left > 0

    def forget_handed_on(self) -> None:
        """Give the memory of what the job has got back; offsets stay."""
        # Whole pages alone: of the last one, the job's pipe may hold a part.
        end = self.handed_on // _PAGE * _PAGE
        if end > self._forgotten:
            punch(self.descriptor, self._forgotten, end - self._forgotten)
            self._forgotten = end

    def empty(self) -> None:
        """Nobody will get what is left."""
        os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)
