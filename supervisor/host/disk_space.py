"""Room on a file system: how much is left, and some that is taken ahead for when there is none."""

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

# What says that there is no room, for now.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# Unless somebody says how much, a tenth of a small file system is to stay free.
LEAST_FREE = 64 * 1024 * 1024
_PART = 10
# How long what was found out may be old.
_FRESH_SECONDS = 0.05


class FreeSpace:
    """What may be written at a place until less than `least` bytes are free there.

    That is -1 for LEAST_FREE, or a tenth of a small file system.
    """

    def __init__(self, place: Path, least: int = -1) -> None:
        self._place = place
        self._least = least
        self._left = 0
        self._looked = -_FRESH_SECONDS

    def left(self) -> int:
        """So many bytes. A file system that cannot be asked is taken to have enough."""
        now = time.monotonic()
        # That there is none is looked at anew, as something is lost by it.
        if self._left <= 0 or now - self._looked >= _FRESH_SECONDS:
            self._looked = now
            self._left = self._look()
        return max(0, self._left)

    def take(self, count: int) -> None:
        """So many bytes have been written."""
        self._left -= count

    def _look(self) -> int:
        try:
            found = os.statvfs(self._place)
        except OSError:
            return sys.maxsize
        least = self._least
        if least < 0:
            least = min(LEAST_FREE, found.f_blocks * found.f_frsize // _PART)
        return found.f_bavail * found.f_frsize - least


class Ballast:
    """A file of `size` bytes that is given up when what must be written finds no room."""

    def __init__(self, path: Path, size: int) -> None:
        """Take no more than a twentieth of the file system."""
        self._path = path
        self.size = size
        with contextlib.suppress(OSError):
            found = os.statvfs(path.parent)
            self.size = min(size, found.f_blocks * found.f_frsize // 20)
        self._taken = False
        self.take()

    def take(self) -> None:
        """Take the room, if it is not taken and there is some."""
        if self._taken:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            # Where no file can be made, none can be given up.
            return
        try:
            os.posix_fallocate(descriptor, 0, self.size)
            self._taken = True
        except OSError:
            # A part of it would be no promise, and in others' way.
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Give the room back to the file system; False when there is none to give."""
        if not self._taken:
            return False
        self._taken = False
        try:
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True
