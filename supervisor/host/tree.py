"""The processes of a job where no cgroup holds them together: found in /proc, by their signs.

A process belongs to a job that carries the job's mark, that has the job's token
in its environment, that is in the session of the job's main process while that
lives, or that descends from such a process. A double fork with setsid(2) leaves
session and descent, execve(2) with another environment leaves the token; the
mark stays. proc(5) describes the files.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from jobworker.supervisor.errors import OUT_OF
from jobworker.supervisor.keeper.proc import start_ticks

# Set in the environment of every job.
TOKEN_VARIABLE = "JOBWORKER_JOB_ID"  # noqa: S105 - a name, not a secret

# Processes that end while they are looked at are looked after so many times.
MOST_LISTINGS = 50


class Process(NamedTuple):
    """One process: `start` in clock ticks since boot tells it from others with its PID.

    `mark` is 0 and `token` empty where this user may not look; `still` says that a
    signal has stopped it.
    """

    pid: int
    parent: int
    session: int
    start: int
    mark: int
    token: str
    still: bool = False


class JobRoot(NamedTuple):
    """How a job's processes are told: its ID, and its main process's PID and start."""

    job_id: str
    pid: int
    start: int

    @property
    def mark(self) -> int:
        """The job's mark."""
        return mark_of(self.job_id)

    def marks(self, process: Process) -> bool:
        """Whether the process carries the job's mark or its token."""
        return process.mark == self.mark or process.token == self.job_id


def mark_of(job_id: str) -> int:
    """The number that a job's processes have as their hard limit of RLIMIT_RSS.

    Linux ignores that limit (setrlimit(2)) and passes it on from process to
    process; to raise it again takes root. It is made of the random bits of a
    UUIDv7 and more bytes than any host has.
    """
    return 1 << 62 | UUID(job_id).int & (1 << 62) - 1


def snapshot(doomed: Collection[JobRoot] = ()) -> list[Process]:
    """Every process that is not a zombie. Those with a doomed job's mark or token are SIGKILLed.

    That is done as soon as each is read, for those that fork and end over and
    over. One that ended before it was read, or was killed, may have left others
    that the listing does not have: then there is another. Raises OSError for want
    of descriptors or memory.
    """
    found: list[Process] = []
    listed: set[int] = set()
    for _ in range(MOST_LISTINGS):
        new = _pids() - listed
        listed |= new
        if not _read_all(new, doomed, found):
            break
    return found


def _read_all(pids: set[int], doomed: Collection[JobRoot], found: list[Process]) -> bool:
    """Add what there is to `found`; whether there may be more than was listed."""
    more = False
    for pid in pids:
        try:
            process = _read(pid)
        except OSError as error:
            # It is there all the same: not to be taken for gone.
            if error.errno in OUT_OF:
                raise
            more = True
            continue
        if process is not None:
            found.append(process)
            if any(root.marks(process) for root in doomed):
                send((process,), signal.SIGKILL)
                more = True
    return more


def _pids() -> set[int]:
    return {int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()}


def _read(pid: int) -> Process | None:
    """None for a zombie. Raises OSError when it is not there any more."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        return None
    mark, token = 0, ""
    with contextlib.suppress(PermissionError):
        _, mark = resource.prlimit(pid, resource.RLIMIT_RSS)
    with contextlib.suppress(PermissionError):
        token = _token(Path(f"/proc/{pid}/environ").read_bytes())
    parent, session, start = (int(fields[place]) for place in (1, 3, 19))
    return Process(pid, parent, session, start, mark, token, still=fields[0] in (b"T", b"t"))


def _token(environment: bytes) -> str:
    """The job's ID in the text of /proc/PID/environ, or empty."""
    name = TOKEN_VARIABLE.encode() + b"="
    for variable in environment.split(b"\0"):
        if variable.startswith(name):
            return variable[len(name) :].decode(errors="replace")
    return ""


def members(processes: Collection[Process], root: JobRoot) -> list[Process]:
    """Those of the processes that belong to the job, its main process first.

    That one is not to see the end of a child before it is signalled itself.
    """
    # Without its leader a session is told by a bare PID, which may be another's by now.
    led = any(process.pid == root.pid and process.start == root.start for process in processes)
    inside = {
        process.pid
        for process in processes
        if root.marks(process) or (led and process.session == root.pid)
    }
    by_parent: dict[int, list[int]] = {}
    for process in processes:
        by_parent.setdefault(process.parent, []).append(process.pid)
    unseen = list(inside)
    while unseen:
        for pid in by_parent.get(unseen.pop(), ()):
            if pid not in inside:
                inside.add(pid)
                unseen.append(pid)
    found = [process for process in processes if process.pid in inside]
    return sorted(found, key=lambda process: process.pid != root.pid)


def send(processes: Iterable[Process], number: int) -> None:
    """Send a signal to each that still is the process it was, and that this user may signal."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            pidfd = os.pidfd_open(process.pid)
            try:
                # With the pidfd open its PID cannot change hands any more.
                if start_ticks(process.pid) == process.start:
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)


def signal_process(pid: int, number: int, still_it: Callable[[], bool]) -> None:
    """Signal a process by its PID if, once that cannot change hands any more, it is `still_it`.

    Raises ProcessLookupError when it is not there.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if still_it():
            signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
