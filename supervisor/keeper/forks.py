"""Forking the keeper: fast, and straight into a cgroup."""

import contextlib
import ctypes
import os
import signal
import struct

# fork(2) as it is. os.fork prepares the child for threads and thereby copies 190
# pages, 0.7 ms of work; the keeper has none.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# clone(2); the same on every machine. struct clone_args has eleven fields.
_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
_CLONE_ARGUMENTS = struct.Struct("=11Q")


def fork() -> int:
    """The child's PID; 0 in the child. Raises OSError (EAGAIN, ENOMEM)."""
    pid = int(_libc.fork())
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid


def fork_into(cgroup: str) -> int:
    """As `fork`, with the child in a cgroup (its directory) from its first instruction on.

    Moving a process holds up every fork and exit on the host for a grace period
    of the kernel's, some 20 ms; being born there does not. Raises OSError also
    where the kernel is older than 5.7 or a sandbox forbids it (ENOSYS, EPERM).
    """
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fields = (_CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, directory)
        arguments = ctypes.create_string_buffer(_CLONE_ARGUMENTS.pack(*fields))
        pid = int(_libc.syscall(_CLONE3, arguments, _CLONE_ARGUMENTS.size))
    finally:
        os.close(directory)
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), cgroup)
    return pid


def fork_near(cgroup: str) -> tuple[int, bool]:
    """Fork, into the cgroup (if any) where that can be; the PID, and whether it was.

    The PID is 0 in the child, which is to join the cgroup itself where it was not.
    Raises OSError.
    """
    if cgroup:
        with contextlib.suppress(OSError):
            return fork_into(cgroup), True
    return fork(), False
