"""File systems that fail: with no room left, or where a program hangs in execve(2)."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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


@contextmanager
def small_file_system(place: Path, size: str) -> Iterator[Path]:
    """A tmpfs of this size (mount(8): 24m) at a place that is made; unmounted in the end."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system: a full disk was NOT tried")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def free(place: Path) -> int:
    """How many bytes there is room for."""
    return shutil.disk_usage(place).free
