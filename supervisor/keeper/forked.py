"""The Python way of spawn.py: fork(2), and what spawn.c's child does, in the same order."""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jobworker.supervisor.keeper.program import REPORT, Program
from jobworker.supervisor.keeper.signals import reset_signals

# fork(2) as it is. os.fork prepares the child for threads and thereby copies 190
# pages, 0.7 ms of work; the keeper has none.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# clone(2); the same on every machine. struct clone_args has eleven fields.
_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
_CLONE_ARGUMENTS = struct.Struct("=11Q")

PR_SET_NO_NEW_PRIVS = 38
# The exit status of a process that could not execute its program.
_FAILED = 127
# As in spawn.c.
_TRIES = 100


def spawn(program: Program, files: Sequence[int], report: int, cgroup: str) -> tuple[int, int]:
    """As Spawner.spawn; `files` become descriptors 0, 1, ... Raises OSError."""
    # A handler of ours must not run in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid, joined = fork_near(cgroup)
        if pid == 0:
            _run(program, files, report, "" if joined else cgroup)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        return pid, os.pidfd_open(pid)
    except OSError:
        # Nobody could end it who is not told of it.
        os.kill(pid, signal.SIGKILL)
        raise


def _run(program: Program, files: Sequence[int], report: int, cgroup: str) -> NoReturn:
    """What the child does: it ends in the program, or tells (errno, step) and ends."""
    step = 0
    # Of what is no OSError.
    number = errno.EINVAL
    try:
        report = _take_files(files, report)
        _leave_parent()
        if program.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        step = 1
        if cgroup:
            with open(f"{cgroup}/cgroup.procs", "w") as procs:
                procs.write("0")
        step = 2
        _limit(program)
        step = 3
        _become_user(program)
        step = 4
        os.chdir(program.cwd)
        step = 5
        _check(program)
        _execute(program)
    except OSError as error:
        number = error.errno or errno.EINVAL
    finally:
        # Also for what is no OSError: this process has no caller to raise to.
        try:
            _tell(report, REPORT.pack(number, step))
        finally:
            os._exit(_FAILED)


def _tell(report: int, what: bytes) -> None:
    """Without a word it would have executed."""
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            os.write(report, what)
            return


def _take_files(files: Sequence[int], report: int) -> int:
    """Keep `files`, as 0, 1, ..., and `report`, whose new number is returned; nothing else."""
    signal.set_wakeup_fd(-1)
    _close_all_but({0, 1, 2, *files, report})
    end = len(files)
    # First out of the way of each other; what was closed has left room.
    apart = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, end + 1) for file in (*files, report)]
    for number, file in enumerate(apart[:-1]):
        os.dup2(file, number)
    os.dup2(apart[-1], end, inheritable=False)
    _close_all_but(set(range(end + 1)))
    return end


def _leave_parent() -> None:
    """Sessions and signals of its own."""
    os.setsid()
    # Unblocks them, too.
    reset_signals()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _close_all_but(kept: set[int]) -> None:
    begin = 0
    for number in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        # An empty range would be taken for all of them (python/cpython, posixmodule.c).
        if begin < number:
            os.closerange(begin, number)
        begin = number + 1


def _limit(program: Program) -> None:
    for number, soft, hard in program.limits:
        _, most = resource.getrlimit(number)
        # Only root may raise a hard limit; what is lower already is limit enough.
        if most != resource.RLIM_INFINITY:
            hard = most if hard == resource.RLIM_INFINITY else min(hard, most)  # noqa: PLW2901
        if hard != resource.RLIM_INFINITY:
            soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)  # noqa: PLW2901
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:
            # So Python tells of EPERM (python/cpython, resource.c).
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from error


def _become_user(program: Program) -> None:
    """Become the job's user, for good; umask and privileges as they are to be.

    From here to execve(2) the kernel keeps others of that user away from this
    process: a change of user makes it not dumpable (prctl(2), PR_SET_DUMPABLE).
    """
    if program.user is not None:
        uid, gid, groups = program.user
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if program.no_new_privileges and _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    os.umask(program.umask)


def _check(program: Program) -> None:
    """Raise the OSError with which execvp(3) would fail for what a sandbox is to execute."""
    telling: OSError | None = None
    last: OSError | None = None
    for path in program.check:
        try:
            _check_one(path)
        except OSError as error:
            last = error
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                telling = telling or error
        else:
            return
    if last is not None:
        raise telling or last


def _check_one(path: bytes) -> None:
    mode = Path(os.fsdecode(path)).stat().st_mode
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _execute(program: Program) -> None:
    """Execute the first path that can be; where none can, raise what says most."""
    environment = dict(variable.split(b"=", 1) for variable in program.environment)
    telling: OSError | None = None
    last: OSError | None = None
    for path in program.paths:
        try:
            os.execve(path, program.argv, environment)
        except OSError as error:
            last = error
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                telling = telling or error
    if last is not None:
        raise telling or last


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
