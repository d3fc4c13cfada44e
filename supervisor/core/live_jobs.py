"""The jobs that have something left to do, and when one has not."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial

from jobworker.supervisor.core.turn import Turn
from jobworker.supervisor.job import State
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.live_job import LiveJob
from jobworker.supervisor.output.pump import Pump
from jobworker.supervisor.quotas import Subject, subjects_of

log = logging.getLogger(__name__)

# How often cgroups that outlive their jobs' main processes are looked at.
SWEEP_SECONDS = 1.0


class LiveJobs:
    """Owns every LiveJob, by ID and by the PID of a main process that is not reaped.

    `emptied` is called whenever the last one has gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keeper: KeeperLink,
        pump: Pump,
        turn: Turn,
        emptied: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._keeper = keeper
        self._pump = pump
        self._turn = turn
        self._emptied = emptied
        self._by_id: dict[str, LiveJob] = {}
        self._by_pid: dict[int, LiveJob] = {}
        self._by_subject: defaultdict[Subject, dict[str, LiveJob]] = defaultdict(dict)
        self._sweeping = False

    def add(self, live: LiveJob) -> None:
        """Take over a job."""
        self._by_id[live.job.id] = live
        for subject in subjects_of(live.job.request):
            self._by_subject[subject][live.job.id] = live
        if live.job.state is not State.ENDED:
            self._by_pid[live.job.pid] = live

    def get(self, job_id: str) -> LiveJob | None:
        """The job of this ID, if it has something left to do."""
        return self._by_id.get(job_id)

    def of(self, subject: Subject) -> Collection[LiveJob]:
        """The jobs of a user or a tenant."""
        return self._by_subject[subject].values() if subject in self._by_subject else ()

    def reaped(self, pid: int) -> LiveJob | None:
        """The job whose main process had this PID, which is free from here on."""
        return self._by_pid.pop(pid, None)

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def retire(self, live: LiveJob) -> None:
        """Forget a job if it has nothing left to do, once that is on record.

        Where that cannot be found out, such as for want of descriptors, it is tried again.
        """
        job = live.job
        if job.state is not State.ENDED or not job.output_complete or live.being_stopped:
            return
        try:
            self._retire(live)
        except OSError as error:
            log.warning("job %s: cannot tell what is left of it: %s", job.id, error)
            self._sweep_later()

    def _retire(self, live: LiveJob) -> None:
        job = live.job
        if live.cgroup is not None and not live.cgroup.populated():
            # The last moment to learn what those used that outlived the main process.
            live.measure()
            job.usage = job.usage.ended()
            self._turn.update(live)
        if live.cgroup is not None and not live.cgroup.remove():
            # Its main process is gone and its output closed, but something lives on.
            self._sweep_later()
            return
        if live.cgroup is not None and not live.gone:
            live.gone = True
            self._turn.tell(live)
        self._turn.after_commit(partial(self.forget, live))

    def forget(self, live: LiveJob) -> None:
        """Let go of a job; what is on record stays."""
        for pipe in live.pipes:
            self._pump.remove(pipe)
        if live.launcher is not None:
            self._loop.remove_reader(live.launcher.fileno())
        live.close()
        if self._by_pid.get(live.job.pid) is live:
            del self._by_pid[live.job.pid]
        if self._by_id.get(live.job.id) is live:
            del self._by_id[live.job.id]
            self._forget_subjects(live)
            self._keeper.drop(live.job.id)
        if not self._by_id:
            self._emptied()

    def _forget_subjects(self, live: LiveJob) -> None:
        for subject in subjects_of(live.job.request):
            jobs = self._by_subject[subject]
            del jobs[live.job.id]
            if not jobs:
                del self._by_subject[subject]

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        for live in self:
            self.retire(live)
