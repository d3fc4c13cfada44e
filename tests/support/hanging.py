"""Programs that hang in execve(2), as on a dead file server."""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Hanging:
    """A program whose execve(2) hangs until `release`.

    A write lease on it (fcntl(2), F_SETLEASE) makes whoever opens it wait until
    the lease is given up, /proc/sys/fs/lease-break-time seconds at most.
    """

    def __init__(self, path: Path, program: str) -> None:
        shutil.copy(program, path)
        self.name = str(path)
        self.descriptor = os.open(path, os.O_RDONLY)
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def release(self) -> None:
        """Let it execute."""
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


@contextmanager
def hanging_copy(path: Path, program: str) -> Iterator[Hanging]:
    """A copy of the program that hangs."""
    # The holder of a lease is sent it when somebody waits.
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    hanging = Hanging(path, program)
    try:
        yield hanging
    finally:
        os.close(hanging.descriptor)
        signal.signal(signal.SIGIO, handler)
