"""Ending whole trees: a signal to all or the main process, a grace period, SIGKILL to the rest."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass

from jobworker.supervisor.host import tree
from jobworker.supervisor.job import StopMode, StopWay
from jobworker.supervisor.local.local_job import LocalJob

log = logging.getLogger(__name__)

# How often a tree that is being ended is looked at: soon at first, then less
# often, as each look at a tree without a cgroup reads all of /proc.
FIRST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.05


@dataclass
class _Stop:
    local: LocalJob
    # When the grace period ends, on the loop's clock.
    deadline: float
    way: StopWay
    # Whether every process has been sent the signal.
    told_all: bool = False
    # Whether a signal could not be sent, such as for want of descriptors.
    owed: bool = False

    def tell(self) -> None:
        """Send the signal that is due now: once to the main process, once to what it leaves."""
        try:
            self._tell()
            self.owed = False
        except OSError as error:
            log.warning("job %s: cannot signal it yet: %s", self.local.job.id, error)
            self.owed = True

    def _tell(self) -> None:
        if self.way.mode is not StopMode.MAIN or not self.local.main_lives():
            self.told_all = True
            with contextlib.suppress(ProcessLookupError):
                self.local.tree.signal(self.way.signal)
                # So that a stopped process gets to see its signal.
                self.local.tree.signal(signal.SIGCONT)
        else:
            with contextlib.suppress(ProcessLookupError):
                _signal_main(self.local, self.way.signal)
                _signal_main(self.local, signal.SIGCONT)
        if self.local.held:
            # What it is signalled with is the first that a paused job gets to see.
            self.local.release()


class Stops:
    """The stops in progress. `gone` is called once for each whose tree has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gone: Callable[[LocalJob], None]) -> None:
        self._loop = loop
        self._gone = gone
        self._stops: dict[str, _Stop] = {}
        self._timer: asyncio.Handle | None = None
        self._pause = FIRST_LOOK_SECONDS

    def begin(self, local: LocalJob, grace: float, way: StopWay) -> None:
        """Signal the job now, SIGKILL what is left of its tree after `grace` seconds.

        What `way` leaves open is the job's own. A stop already in progress is
        only ever hastened; it sends another signal if another way is asked for.
        """
        deadline = self._loop.time() + grace
        known = self._stops.get(local.job.id)
        if known is None:
            way = way.or_else(local.job.request.stop)
            known = self._stops[local.job.id] = _Stop(local, deadline, way)
            if grace > 0:
                known.tell()
        else:
            known.deadline = min(known.deadline, deadline)
            if grace > 0 and known.way != (way := way.or_else(known.way)):
                known.way = way
                known.tell()
        self._look_soon()

    def _look_soon(self) -> None:
        self._pause = FIRST_LOOK_SECONDS
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Kill what is overdue, and tell of every tree that has ended; again, while any has not.

        Also where it fails, such as for want of descriptors: a stop goes on until it is over.
        """
        self._timer = None
        try:
            self._advance()
        except OSError as error:
            log.warning("cannot look at what is being stopped: %s", error)
        if self._stops:
            self._timer = self._loop.call_later(self._pause, self._look)
            self._pause = min(LONGEST_LOOK_SECONDS, self._pause * 1.5)

    def _advance(self) -> None:
        now = self._loop.time()
        without_cgroup = [stop for stop in self._stops.values() if stop.local.cgroup is None]
        overdue = [stop.local for stop in without_cgroup if now >= stop.deadline]
        for local in overdue:
            # First, so that it cannot act on the end of a child.
            local.kill_main()
        processes = tree.snapshot([local.root for local in overdue]) if without_cgroup else []
        for stop in list(self._stops.values()):
            if now >= stop.deadline:
                stop.local.tree.kill(processes)
            elif stop.owed or (not stop.told_all and not stop.local.main_lives()):
                stop.tell()
            if not stop.local.tree.any_left(processes):
                del self._stops[stop.local.job.id]
                self._gone(stop.local)


def _signal_main(local: LocalJob, number: int) -> None:
    if local.main is None:
        raise ProcessLookupError
    local.main.signal(number)
