"""Who attends to jobs that are not to go on without: what happens when nobody is left."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable

from jobworker.supervisor.job import OnDisconnect, State
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs


class Attendance:
    """Calls `alone` with a job to which nobody has attended for so many seconds.

    Not when the last to go has taken leave. Of who attended under another supervisor
    nothing is known but what the front says again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        jobs: LiveJobs,
        seconds: float,
        alone: Callable[[LiveJob], None],
    ) -> None:
        """They have as long to come back, or to come at all once the job has begun."""
        self._loop = loop
        self._jobs = jobs
        self._alone = alone
        self._seconds = seconds
        # By job: over which connection, and who.
        self._here: defaultdict[str, set[tuple[Hashable, str]]] = defaultdict(set)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def expect(self, live: LiveJob) -> None:
        """A job has begun to which somebody is to attend, if it cares."""
        if live.job.request.on_disconnect is not OnDisconnect.KEEP:
            self._await(live.job.id)

    def comes(self, connection: Hashable, job_id: str, who: str) -> None:
        """Somebody attends from here on."""
        self._here[job_id].add((connection, who))
        self._cancel(job_id)

    def goes(self, connection: Hashable, job_id: str, who: str, *, leave: bool) -> None:
        """They do no longer; with `leave` they have said so."""
        self._here[job_id].discard((connection, who))
        if not self._here[job_id]:
            del self._here[job_id]
            if not leave:
                self._await(job_id)

    def lost(self, connection: Hashable) -> None:
        """A connection is gone, and with it all who attend over it."""
        everybody = [(job_id, *one) for job_id, here in self._here.items() for one in here]
        for job_id, over, who in everybody:
            if over is connection:
                self.goes(over, job_id, who, leave=False)

    def _await(self, job_id: str) -> None:
        live = self._jobs.get(job_id)
        if live is not None and live.job.request.on_disconnect is not OnDisconnect.KEEP:
            self._cancel(job_id)
            self._timers[job_id] = self._loop.call_later(self._seconds, self._over, live)

    def _over(self, live: LiveJob) -> None:
        del self._timers[live.job.id]
        if self._jobs.get(live.job.id) is live and live.job.state is not State.ENDED:
            self._alone(live)

    def _cancel(self, job_id: str) -> None:
        timer = self._timers.pop(job_id, None)
        if timer is not None:
            timer.cancel()
