"""Making the processes of jobs, each once, and holding what must outlive who asked for it."""

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Iterator
from typing import NamedTuple

from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.proc import start_ticks
from jobworker.supervisor.keeper.program import Program
from jobworker.supervisor.keeper.spawn import Spawner

# The soft limit of open files that this process was started with. The keeper
# imports this before it raises its own for the many descriptors that it holds;
# programs that use select(2), or close all that may be open, count on the lower.
_OPEN_FILES, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
# Behind which in `Born.kept` comes what more the order had kept.
_PIDFD = 3


class Order(NamedTuple):
    """The descriptors that come with the order to make a job's process.

    A memfd with the Program; what is kept of the job: read ends of its output,
    and the supervisor's end of the socket for its report; and what the process
    gets: the write ends, the other end of that socket, and the rest of its files.
    """

    program: int
    stdout: int
    stderr: int
    report: int
    stdout_write: int
    stderr_write: int
    report_write: int


class Born(NamedTuple):
    """A job's main process, its start in clock ticks since boot, and what is kept for the job.

    That is the read ends of stdout and stderr, the socket of the report, a pidfd,
    what more the order had kept, and what it had the job's program find behind
    its first three files.
    """

    pid: int
    start: int
    kept: tuple[int, ...]

    @property
    def pidfd(self) -> int:
        """The process's pidfd."""
        return self.kept[_PIDFD]


class Births:
    """Makes jobs' processes, and owns what is kept of each, by key."""

    def __init__(self) -> None:
        self._spawner = Spawner()
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._born: dict[str, Born] = {}

    def make(self, key: str, cgroup: str, descriptors: tuple[int, ...], more: int = 0) -> Born:
        """Make the process for a key, or tell of the one that was made before.

        Takes over the descriptors of an Order and what comes behind them: where there
        are `more` to be kept, those, and the program's stdin; then the rest of its
        files. Raises OSError when there can be no process, also (EINVAL) for what is
        no order.
        """
        try:
            if key not in self._born:
                self._born[key] = self._make(cgroup, descriptors, more)
                kept = self._born[key].kept
                descriptors = tuple(number for number in descriptors if number not in kept)
            return self._born[key]
        except (ValueError, TypeError) as error:
            # Whoever made it is at fault; the keeper, and all jobs with it, must live on.
            raise OSError(errno.EINVAL, str(error)) from error
        except MemoryError as error:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        finally:
            packets.close_all(descriptors)

    def _make(self, cgroup: str, descriptors: tuple[int, ...], more: int) -> Born:
        count = len(Order._fields)
        if len(descriptors) < count + (more + 1 if more else 0):
            # So the kernel delivers what there was no room for (unix(7), MSG_CTRUNC).
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        order, rest = Order(*descriptors[:count]), descriptors[count:]
        kept, rest = rest[:more], rest[more:]
        stdin, rest = (rest[0], rest[1:]) if more else (self._null, rest)
        program = _program(order.program)
        files = (stdin, order.stdout_write, order.stderr_write, *rest)
        pid, pidfd = self._spawner.spawn(program, files, order.report_write, cgroup)
        try:
            start = start_ticks(pid)
        except OSError:
            # Nobody could tell it from another of its PID.
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            raise
        # The last of what a sandbox gets is where the end of its program is told.
        told = rest[-1:] if len(rest) > 1 else ()
        return Born(pid, start, (order.stdout, order.stderr, order.report, pidfd, *kept, *told))

    def undo(self, key: str) -> None:
        """Kill the process that was made for the key, if one was, and forget it."""
        if key in self._born:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._born[key].pidfd, signal.SIGKILL)
        self.drop(key)

    def drop(self, key: str) -> None:
        """Close what is kept under the key, if anything is."""
        born = self._born.pop(key, None)
        if born is not None:
            packets.close_all(born.kept)

    def shut(self, key: str, index: int) -> None:
        """Of what is kept under the key close this one; /dev/null takes its place."""
        born = self._born.get(key)
        if born is not None and _PIDFD < index < len(born.kept):
            os.dup2(self._null, born.kept[index], inheritable=False)

    def items(self) -> Iterator[tuple[str, Born]]:
        """Every key with what is kept, which stays ours."""
        return iter(self._born.items())

    def __len__(self) -> int:
        return len(self._born)


def _program(descriptor: int) -> Program:
    """What `Program.to_memfd` wrote, run within the limit of open files that jobs have."""
    program = Program.read(descriptor)
    limit = (int(resource.RLIMIT_NOFILE), _OPEN_FILES, resource.RLIM_INFINITY)
    return program._replace(limits=(limit, *program.limits))
