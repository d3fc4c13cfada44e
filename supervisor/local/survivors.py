"""What is left of jobs whose service died: found, and ended."""

import contextlib
import logging
import signal
from collections.abc import Iterable
from time import monotonic

from jobworker.supervisor.host import tree
from jobworker.supervisor.job import Job
from jobworker.supervisor.local.local_job import Whereabouts

log = logging.getLogger(__name__)

# How long a process that was sent SIGKILL is waited for: one that waits for a
# dead disk or file server may never end.
SURVIVOR_SECONDS = 5.0


def end_survivors(lost: Iterable[Job]) -> None:
    """SIGKILL what is left of these jobs, until nothing is or none ends any more.

    They are found by cgroup, by mark or token, or by the PID of the main process
    together with its start time: never by a PID alone.
    """
    roots = []
    for job in lost:
        where = Whereabouts.of(job)
        roots.append(where.root(job))
        if where.directory is not None:
            with contextlib.suppress(OSError):
                where.directory.kill()
    deadline = monotonic() + SURVIVOR_SECONDS
    while roots:
        processes = tree.snapshot(doomed=roots)
        left = [process for root in roots for process in tree.members(processes, root)]
        if not left:
            return
        if monotonic() > deadline:
            log.error("processes of lost jobs do not end: %s", [process.pid for process in left])
            return
        tree.send(left, signal.SIGKILL)
