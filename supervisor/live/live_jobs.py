"""The jobs that have something left to do, and when one has not."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from functools import partial

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.job import Job, State
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.quotas import Subject, subjects_of

log = logging.getLogger(__name__)

# How often jobs are looked at of which something outlives the main process.
SWEEP_SECONDS = 1.0


class LiveJobs:
    """Owns every LiveJob, by ID.

    `emptied` is called whenever the last one has gone, and `cleared` with each that is to be
    started again, once nothing is left of its attempt.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        turn: Turn,
        emptied: Callable[[], None],
        cleared: Callable[[LiveJob], None],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._turn = turn
        self._emptied = emptied
        self._cleared = cleared
        self._by_id: dict[str, LiveJob] = {}
        self._by_subject = _Index(lambda job: subjects_of(job.request))
        # By the ID of the job that they run within.
        self._inside = _Index(lambda job: _given(job.request.inside))
        # By the queue that they came from.
        self._from_queue = _Index(lambda job: _given(job.request.waiting.queue))
        self._named = _Index(lambda job: [(job.request.owner, job.request.name)])
        self._sweeping = False

    def add(self, live: LiveJob) -> None:
        """Take over a job."""
        self._by_id[live.job.id] = live
        for index in self._indexes():
            index.add(live)

    def get(self, job_id: str) -> LiveJob | None:
        """The job of this ID, if it has something left to do."""
        return self._by_id.get(job_id)

    def of(self, subject: Subject) -> Collection[LiveJob]:
        """The jobs of a user or a tenant."""
        return self._by_subject.of(subject)

    def running(self, subject: Subject) -> int:
        """How many jobs of a user or a tenant have not ended."""
        return sum(live.job.state is not State.ENDED for live in self.of(subject))

    def running_in(self, queue: str) -> int:
        """How many have begun in a queue, and not ended."""
        begun = self._from_queue.of(queue)
        return sum(live.job.state not in (State.PENDING, State.ENDED) for live in begun)

    def named(self, owner: str, name: str) -> Collection[LiveJob]:
        """The owner's jobs of this name."""
        return self._named.of((owner, name))

    def inside(self, job_id: str) -> Collection[LiveJob]:
        """The jobs that run within this one."""
        return self._inside.of(job_id)

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
        if job.state is State.RESTARTING:
            self._cleared(live)
            return
        if vacant and not live.gone:
            live.gone = True
            self._turn.tell(live)
        self._turn.after_commit(partial(self.forget, live))

    def forget(self, live: LiveJob) -> None:
        """Let go of a job; what is on record stays."""
        if self._by_id.get(live.job.id) is live:
            del self._by_id[live.job.id]
            for index in self._indexes():
                index.discard(live)
            self._engine.forget(live.job)
        if not self._by_id:
            self._emptied()

    def _indexes(self) -> Iterable["_Index"]:
        return self._by_subject, self._inside, self._from_queue, self._named

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        for live in self:
            self.retire(live)


class _Index:
    """Jobs by what they have in common; nothing is kept of what none has any more."""

    def __init__(self, keys: Callable[[Job], Iterable[Hashable]]) -> None:
        self._keys = keys
        self._jobs: defaultdict[Hashable, dict[str, LiveJob]] = defaultdict(dict)

    def add(self, live: LiveJob) -> None:
        for key in self._keys(live.job):
            self._jobs[key][live.job.id] = live

    def discard(self, live: LiveJob) -> None:
        for key in self._keys(live.job):
            self._jobs[key].pop(live.job.id, None)
            if not self._jobs[key]:
                del self._jobs[key]

    def of(self, key: Hashable) -> Collection[LiveJob]:
        """Those there are now: the caller may have some of them go."""
        return list(self._jobs[key].values()) if key in self._jobs else ()


def _given(text: str) -> Iterable[str]:
    return [text] if text else []
