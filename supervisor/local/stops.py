"""Ending whole trees: SIGTERM to every process, a grace period, SIGKILL until none is left."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jobworker.supervisor.host import tree
from jobworker.supervisor.host.cgroup import Cgroup
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.local.live_job import LiveJob, signal_process

# How often a tree that is being ended is looked at: soon at first, then less
# often, as each look at a tree without a cgroup reads all of /proc.
FIRST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.05


@dataclass
class _Stop:
    live: LiveJob
    # When the grace period ends, on the loop's clock.
    deadline: float


class Stops:
    """The stops in progress. `gone` is called once for each whose tree has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gone: Callable[[LiveJob], None]) -> None:
        self._loop = loop
        self._gone = gone
        self._stops: dict[str, _Stop] = {}
        self._timer: asyncio.Handle | None = None
        self._pause = FIRST_LOOK_SECONDS

    def begin(self, live: LiveJob, grace: float) -> None:
        """SIGTERM the job's tree now, SIGKILL what is left after `grace` seconds.

        A stop already in progress is only ever hastened.
        """
        deadline = self._loop.time() + grace
        known = self._stops.get(live.job.id)
        if known is not None:
            known.deadline = min(known.deadline, deadline)
        else:
            self._stops[live.job.id] = _Stop(live, deadline)
            live.being_stopped = True
            if grace > 0:
                _terminate(live)
        self._look_soon()

    def _look_soon(self) -> None:
        self._pause = FIRST_LOOK_SECONDS
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Kill what is overdue, and tell of every tree that has ended."""
        self._timer = None
        now = self._loop.time()
        without_cgroup = [stop for stop in self._stops.values() if stop.live.cgroup is None]
        overdue = [stop.live for stop in without_cgroup if now >= stop.deadline]
        for live in overdue:
            # First, so that it cannot act on the end of a child.
            live.kill_main()
        processes = tree.snapshot([live.root for live in overdue]) if without_cgroup else []
        for stop in list(self._stops.values()):
            if now >= stop.deadline:
                _kill(stop.live, processes)
            if not _any_left(stop.live, processes):
                del self._stops[stop.live.job.id]
                stop.live.being_stopped = False
                stop.live.gone = True
                self._gone(stop.live)
        if self._stops:
            self._timer = self._loop.call_later(self._pause, self._look)
            self._pause = min(LONGEST_LOOK_SECONDS, self._pause * 1.5)


def _terminate(live: LiveJob) -> None:
    # SIGCONT, so that a stopped process gets to see its SIGTERM.
    for number in (signal.SIGTERM, signal.SIGCONT):
        # Bubblewrap would end, and with it what the job's end is told by.
        spared = live.job.pid if live.job.request.profile is Profile.PRIVATE else 0
        if live.cgroup is not None:
            _signal_cgroup(live.cgroup, number, spared)
        else:
            members = tree.members(tree.snapshot(), live.root)
            tree.send([process for process in members if process.pid != spared], number)


def _kill(live: LiveJob, processes: Sequence[tree.Process]) -> None:
    if live.cgroup is None:
        tree.send(tree.members(processes, live.root), signal.SIGKILL)
    elif not live.cgroup.kill():
        _signal_cgroup(live.cgroup, signal.SIGKILL)


def _signal_cgroup(cgroup: Cgroup, number: signal.Signals, spared: int = 0) -> None:
    for pid in cgroup.pids():
        if pid != spared:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # Between reading the PID and opening it, it may have changed hands.
                signal_process(pid, number, partial(_holds, cgroup, pid))


def _holds(cgroup: Cgroup, pid: int) -> bool:
    return pid in cgroup.pids()


def _any_left(live: LiveJob, processes: Sequence[tree.Process]) -> bool:
    if live.cgroup is not None:
        return live.cgroup.populated()
    return bool(tree.members(processes, live.root))
