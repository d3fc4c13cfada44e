"""Giving back the room of a part of a file, while its offsets stay (fallocate(2))."""

import ctypes
import os

_PUNCH_HOLE, _KEEP_SIZE = 0x02, 0x01

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def punch(descriptor: int, start: int, length: int) -> None:
    """Make a hole of so many bytes; they read as zeros then. Raises OSError.

    Of a page that is in it only in part, that part is written to.
    """
    if _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, start, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
