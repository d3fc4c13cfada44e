"""The jobs that have something left to do, and when one has not."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial

from jobworker.supervisor.core.live_job import LiveJob
from jobworker.supervisor.core.turn import Turn
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.job import State
from jobworker.supervisor.quotas import Subject, subjects_of

log = logging.getLogger(__name__)

# How often jobs are looked at of which something outlives the main process.
SWEEP_SECONDS = 1.0


class LiveJobs:
    """Owns every LiveJob, by ID.

    `emptied` is called whenever the last one has gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        turn: Turn,
        emptied: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._turn = turn
        self._emptied = emptied
        self._by_id: dict[str, LiveJob] = {}
        self._by_subject: defaultdict[Subject, dict[str, LiveJob]] = defaultdict(dict)
        # Those that run within another, by that one's ID.
        self._inside: defaultdict[str, dict[str, LiveJob]] = defaultdict(dict)
        # Those that waited for their turn in a queue, by its name.
        self._from_queue: defaultdict[str, dict[str, LiveJob]] = defaultdict(dict)
        # Those with a name, by owner and name.
        self._named: defaultdict[tuple[str, str], dict[str, LiveJob]] = defaultdict(dict)
        self._sweeping = False

    def add(self, live: LiveJob) -> None:
        """Take over a job."""
        self._by_id[live.job.id] = live
        for subject in subjects_of(live.job.request):
            self._by_subject[subject][live.job.id] = live
        if live.job.request.inside:
            self._inside[live.job.request.inside][live.job.id] = live
        if live.job.request.waiting.queue:
            self._from_queue[live.job.request.waiting.queue][live.job.id] = live
        if live.job.request.name:
            self._named[_name_of(live)][live.job.id] = live

    def get(self, job_id: str) -> LiveJob | None:
        """The job of this ID, if it has something left to do."""
        return self._by_id.get(job_id)

    def of(self, subject: Subject) -> Collection[LiveJob]:
        """The jobs of a user or a tenant."""
        return self._by_subject[subject].values() if subject in self._by_subject else ()

    def running_in(self, queue: str) -> int:
        """How many have begun in a queue, and not ended."""
        begun = self._from_queue[queue].values() if queue in self._from_queue else ()
        return sum(live.job.state not in (State.PENDING, State.ENDED) for live in begun)

    def named(self, owner: str, name: str) -> Collection[LiveJob]:
        """The owner's jobs of this name."""
        key = (owner, name)
        return list(self._named[key].values()) if key in self._named else ()

    def inside(self, job_id: str) -> Collection[LiveJob]:
        """The jobs that run within this one."""
        return list(self._inside[job_id].values()) if job_id in self._inside else ()

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def retire(self, live: LiveJob) -> None:
        """Forget a job if it has nothing left to do, once that is on record.

        Where that cannot be found out, such as for want of descriptors, it is tried again.
        """
        job = live.job
        if not live.over:
            return
        try:
            self._retire(live)
        except OSError as error:
            log.warning("job %s: cannot tell what is left of it: %s", job.id, error)
            self._sweep_later()

    def _retire(self, live: LiveJob) -> None:
        job = live.job
        vacant = self._engine.vacant(job)
        if vacant:
            # The last moment to learn what those used that outlived the main process.
            job.usage = self._engine.usage(job).ended()
            self._turn.learned(live)
        if vacant is False or not self._engine.clear(job):
            # Its main process is gone and its output closed, but something lives on.
            self._sweep_later()
            return
        if vacant and not live.gone:
            live.gone = True
            self._turn.tell(live)
        self._turn.after_commit(partial(self.forget, live))

    def forget(self, live: LiveJob) -> None:
        """Let go of a job; what is on record stays."""
        if self._by_id.get(live.job.id) is live:
            del self._by_id[live.job.id]
            self._forget_subjects(live)
            self._forget_inside(live)
            self._forget_name(live)
            self._from_queue[live.job.request.waiting.queue].pop(live.job.id, None)
            self._engine.forget(live.job)
        if not self._by_id:
            self._emptied()

    def _forget_subjects(self, live: LiveJob) -> None:
        for subject in subjects_of(live.job.request):
            jobs = self._by_subject[subject]
            del jobs[live.job.id]
            if not jobs:
                del self._by_subject[subject]

    def _forget_inside(self, live: LiveJob) -> None:
        other = live.job.request.inside
        if other in self._inside:
            self._inside[other].pop(live.job.id, None)
            if not self._inside[other]:
                del self._inside[other]

    def _forget_name(self, live: LiveJob) -> None:
        key = _name_of(live)
        if key in self._named:
            self._named[key].pop(live.job.id, None)
            if not self._named[key]:
                del self._named[key]

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        for live in self:
            self.retire(live)


def _name_of(live: LiveJob) -> tuple[str, str]:
    return live.job.request.owner, live.job.request.name
