"""The processes of a job where no cgroup holds them together: found in /proc, by three signs.

A process belongs to a job that is in the session of the job's main process,
that carries the job's token in its environment, or that descends from such a
process. A double fork with setsid leaves the session and the descent; the
token stays. proc(5) describes the files.
"""

import contextlib
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jobworker.supervisor.launcher import TOKEN_VARIABLE, start_ticks


class Process(NamedTuple):
    """One process: `start` in clock ticks since boot tells it from others with its PID."""

    pid: int
    parent: int
    session: int
    start: int
    token: str


class JobRoot(NamedTuple):
    """How a job's processes are told: its ID, and its main process's PID and start."""

    job_id: str
    pid: int
    start: int


def snapshot() -> list[Process]:
    """Every process that is not a zombie, as far as this user may look."""
    return list(_processes())


def _processes() -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                process = _read(int(entry.name))
                if process is not None:
                    yield process


def _read(pid: int) -> Process | None:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        return None
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        environment = b""
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), _token(environment))


def _token(environment: bytes) -> str:
    """The job's ID in the text of /proc/PID/environ, or empty."""
    name = TOKEN_VARIABLE.encode() + b"="
    for variable in environment.split(b"\0"):
        if variable.startswith(name):
            return variable[len(name) :].decode(errors="replace")
    return ""


def members(processes: Collection[Process], root: JobRoot) -> list[Process]:
    """Those of the processes that belong to the job."""
    # The PID may have gone to another process since; its session then is not the job's.
    reused = any(p.pid == root.pid and p.start != root.start for p in processes)
    inside = {
        p.pid for p in processes if p.token == root.job_id or (p.session == root.pid and not reused)
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
    return [process for process in processes if process.pid in inside]


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to each that still is the process it was when the snapshot was taken."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            pidfd = os.pidfd_open(process.pid)
            try:
                # With the pidfd open its PID cannot change hands any more.
                if start_ticks(process.pid) == process.start:
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)
