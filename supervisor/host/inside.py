"""How a job in a sandbox ended, from a small program inside it: see inside.c.

It is built with the package where there is a compiler. Where it is not there, a
code above 128 is taken for a signal, as bubblewrap tells both in the same way.
"""

import contextlib
import fcntl
import os
import struct
from functools import cache
from pathlib import Path

# Beside this file; setup.py builds it.
PROGRAM = Path(__file__).with_name("inside")
_TELLER = "jobworker-teller"
_NAME = "jobworker-told"
_FROZEN = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
# Whether the program has ended, and its wait status.
_TOLD = struct.Struct("=ii")


@cache
def _program() -> bytes:
    """The program; empty where it was not built."""
    try:
        return PROGRAM.read_bytes()
    except OSError:
        return b""


def new_teller() -> int | None:
    """The program as a file in memory, to execute it by; None where that cannot be.

    Each job has its own, and none a descriptor of the host's file: through
    /proc/PID/fd it could change that one, if it is its user's.
    """
    if not _program():
        return None
    try:
        descriptor = os.memfd_create(_TELLER, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        # Where vm.memfd_noexec is 2.
        return None
    os.write(descriptor, _program())
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FROZEN | fcntl.F_SEAL_WRITE)
    if not os.access(f"/proc/self/fd/{descriptor}", os.X_OK):
        os.close(descriptor)
        return None
    return descriptor


def new_told() -> int:
    """A file in memory for one status, which nobody can make larger."""
    descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _TOLD.size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FROZEN)
    return descriptor


def told_of(pid: int) -> int:
    """That file once more, of the teller that has this PID; -1 if it has none."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if str(entry.readlink()).startswith(f"/memfd:{_NAME}"):
                return os.open(entry, os.O_RDWR | os.O_CLOEXEC)
    return -1


def is_teller(pid: int) -> bool:
    """Whether the process executes the program."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).startswith(f"/memfd:{_TELLER}")
    except OSError:
        return False


def status(told: int) -> int | None:
    """The wait status of the job's program, None if it has not been told."""
    ended, found = _TOLD.unpack(os.pread(told, _TOLD.size, 0))
    return found if ended else None
