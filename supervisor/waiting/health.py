"""Whether jobs are ready, and go on being healthy: somebody answers at a port of theirs."""

import asyncio
import logging
from collections.abc import Callable

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import SupervisorError
from jobworker.supervisor.job import HealthCheck, State
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs

log = logging.getLogger(__name__)

# How often a job is looked at that is not ready yet; at most as often as when it is.
_SOON_SECONDS = 0.25


class Health:
    """Looks at the jobs with a health check as long as they run.

    Calls `ready` with a job of which it has passed for the first time, and `ill` with one of
    which it has not for too long.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        jobs: LiveJobs,
        *,
        ready: Callable[[LiveJob], None],
        ill: Callable[[LiveJob, str], None],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._jobs = jobs
        self._ready = ready
        self._ill = ill
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, live: LiveJob) -> None:
        """Look at a job that runs; one without a check is ready."""
        check = live.job.request.health
        if not check.port:
            self._ready(live)
            return
        task = self._loop.create_task(self._look_at(live, check))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_at(self, live: LiveJob, check: HealthCheck) -> None:
        until = self._loop.time() + check.start
        failures = 0
        while self._goes_on(live):
            why = await self._failure(live, check.port)
            if not self._goes_on(live):
                return
            if live.job.state is State.PAUSED:
                # It cannot answer, and is not to be ended for that.
                failures, until = 0, self._loop.time() + check.start
            elif not why:
                failures = 0
                if not live.ready:
                    self._ready(live)
            elif live.ready:
                failures += 1
                if failures >= check.retries:
                    self._ill(live, f"{why}, {failures} times in a row")
                    return
            elif self._loop.time() > until:
                self._ill(live, f"{why}, not within {check.start:g} s")
                return
            pause = check.interval if live.ready else min(_SOON_SECONDS, check.interval)
            await asyncio.sleep(pause)

    def _goes_on(self, live: LiveJob) -> bool:
        return self._jobs.get(live.job.id) is live and live.job.state.going_on

    async def _failure(self, live: LiveJob, port: int) -> str:
        """Why nobody answers; empty if somebody does."""
        try:
            made = await self._engine.connect(live.job, port)
        except (SupervisorError, OSError) as error:
            return f"its health check has failed: {error}"
        made.close()
        return ""

    def close(self) -> None:
        """Look at none any more."""
        for task in self._tasks:
            task.cancel()
