"""What is inside a job's sandbox: its processes, the way in, and how its program ended.

The end is told by a small program, see inside.c, which also enters a sandbox for
another job. It is built with the package where there is a compiler. Where it is not
there, a code above 128 is taken for a signal, as bubblewrap tells both in the same way.
"""

import contextlib
import fcntl
import os
import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Beside this file; setup.py builds it.
PROGRAM = Path(__file__).with_name("inside")
_TELLER = "jobworker-teller"
_NAME = "jobworker-told"
_FROZEN = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
# Whether the program has ended, and its wait status.
_TOLD = struct.Struct("=ii")
# Files in /proc/PID/ns -> clone(2)'s flags, which setns(2) takes with a pidfd.
_NAMESPACES = {
    "user": 0x10000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "net": 0x40000000,
    "cgroup": 0x02000000,
}


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


def can_enter() -> bool:
    """Whether the program is there, without which nothing enters a sandbox that is there."""
    teller = new_teller()
    if teller is not None:
        os.close(teller)
    return teller is not None


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


def program_of(wrapper: int) -> int | None:
    """The PID of the program that runs below a private job's main process; None if there is none.

    /proc/PID/task/TID/children (proc(5)) has the oldest child first.
    """
    if is_teller(wrapper):
        # It has entered another job's sandbox, and stayed outside itself.
        return _first_child(wrapper)
    first = first_inside(wrapper)
    # Of a job that was started without a teller, it is the program.
    return _first_child(first) if first is not None and is_teller(first) else first


def told_by(wrapper: int) -> int:
    """Where the teller below a private job's main process tells the end; -1 if there is none."""
    teller = wrapper if is_teller(wrapper) else first_inside(wrapper)
    return -1 if teller is None else told_of(teller)


def first_inside(wrapper: int) -> int | None:
    """What bubblewrap has executed in the sandbox."""
    inner = _first_child(wrapper)
    return None if inner is None else _first_child(inner)


def _first_child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class Entrance(NamedTuple):
    """A pidfd of a process in the sandbox, and the flags of its namespaces that are not ours."""

    pidfd: int
    namespaces: int


def open_entrance(wrapper: int) -> Entrance:
    """The way into the sandbox around a job's program; the pidfd is the caller's.

    `wrapper` is the job's main process. Raises BlockingIOError as long as the
    sandbox is being made, ProcessLookupError when it is gone.
    """
    pid = first_inside(wrapper)
    # Until it executes ours, its namespaces may not be those of the program yet.
    if pid is None or not is_teller(pid):
        os.kill(wrapper, 0)
        raise BlockingIOError
    pidfd = os.pidfd_open(pid)
    try:
        namespaces = _foreign(pid)
        if first_inside(wrapper) != pid:
            # Before the pidfd was there, the PID may have become another's.
            raise ProcessLookupError
    except BaseException:
        os.close(pidfd)
        raise
    return Entrance(pidfd, namespaces)


def _foreign(pid: int) -> int:
    flags = 0
    for name, flag in _NAMESPACES.items():
        if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):  # noqa: PTH115
            flags |= flag
    return flags
