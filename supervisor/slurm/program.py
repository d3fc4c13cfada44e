"""The program's process on a node: made by fork(2), as little else lives there."""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import struct

from jobworker.supervisor.slurm.files import Order

# prctl(2).
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38
_FAILURE = struct.Struct("ii")
_STEPS = ("prepare", "change the directory to {cwd}", "execute {program}")
# Characters of a path in an error.
_SHOWN = 300


class CannotBegin(Exception):
    """The program does not execute; at which step, and the errno."""

    def __init__(self, number: int, step: str) -> None:
        super().__init__(step)
        self.number = number
        self.step = step


def adopt_orphans() -> None:
    """Become the parent of whatever loses its own below this process."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def begin(order: Order, stdout: int, stderr: int) -> int:
    """The PID of the program, which executes. Raises CannotBegin."""
    news, report = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(order, stdout, stderr, report)
    os.close(report)
    try:
        told = os.read(news, _FAILURE.size)
    finally:
        os.close(news)
    if not told:
        return pid
    os.waitpid(pid, 0)
    number, step = _FAILURE.unpack(told)
    text = _STEPS[step].format(cwd=order.cwd[:_SHOWN], program=order.argv[0][:_SHOWN])
    raise CannotBegin(number, _bytes(text).decode("utf-8", "replace"))


def _become(order: Order, stdout: int, stderr: int, report: int) -> None:
    step = 0
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        null = os.open("/dev/null", os.O_RDONLY)
        for here, there in ((null, 0), (stdout, 1), (stderr, 2)):
            os.dup2(here, there)
        for which, limit in order.rlimits:
            resource.setrlimit(which, (limit, limit))
        if order.no_new_privileges:
            ctypes.CDLL(None).prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.umask(order.umask)
        step = 1
        os.chdir(_bytes(order.cwd))
        step = 2
        argv = [_bytes(word) for word in order.argv]
        slurm = {name: text for name, text in os.environ.items() if name.startswith("SLURM")}
        environment = {
            _bytes(name): _bytes(text) for name, text in {**slurm, **order.environment}.items()
        }
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        os.write(report, _FAILURE.pack(error.errno or errno.EIO, step))
    except BaseException:  # noqa: BLE001 - nothing may come back from here
        os.write(report, _FAILURE.pack(errno.EINVAL, step))
    finally:
        os._exit(127)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
