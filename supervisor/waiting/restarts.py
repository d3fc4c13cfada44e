"""Jobs that are started again when they end: when that is, and what is ended before."""

import random
from collections.abc import Callable
from functools import partial

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.job import (
    AS_EVER,
    Attempt,
    Happening,
    Job,
    Reason,
    RestartWhen,
    State,
    after,
)
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.waiting.pending import Pending

# In all, however healthy they were: each leaves its row and its line in the audit log.
MOST_ATTEMPTS = 1000
# So that what failed together does not begin together: a delay is up to so much longer.
_JITTER = 0.25
# Ends that are somebody's decision, or that another attempt cannot change.
_FINAL = {
    Reason.STOPPED,
    Reason.OUTPUT_LIMIT,
    Reason.REFUSED,
    Reason.QUEUE_TIMEOUT,
    Reason.DEPENDENCY_FAILED,
}


class Restarts:
    """Decides at the end of each attempt whether another follows, and has it wait for that.

    `age` says how many seconds ago a job was started, `stop_inside` ends what runs within
    it, and `jitter` is a random number from 0 to before 1.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: LiveJobs,
        turn: Turn,
        pending: Pending,
        age: Callable[[str], float],
        stop_inside: Callable[[LiveJob], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._turn = turn
        self._pending = pending
        self._age = age
        self._stop_inside = stop_inside
        self._jitter = jitter

    def follows(self, live: LiveJob) -> bool:
        """Whether another attempt follows one of which all is known but for its state.

        Then it is seen to; otherwise the job has ended.
        """
        if not self._goes_on(live.job):
            return False
        live.job.state = after(live.job.state, Happening.ATTEMPT_ENDED)
        self._turn.update(live)
        self.clear(live)
        return True

    def follows_loss(self, job: Job) -> bool:
        """The same of a job of which nothing is left, before anything else is known of it."""
        if job.state is not State.RESTARTING:
            if not self._goes_on(job):
                return False
            job.state = after(job.state, Happening.ATTEMPT_ENDED)
        job.wait_again()
        return True

    def _goes_on(self, job: Job) -> bool:
        """Whether the job is to be started again; its attempt is among those that have ended then.

        Where it is not because it was often enough, its detail says so.
        """
        if not _wanted(job):
            return False
        how, last = job.request.restart, job.attempts[-1] if job.attempts else None
        lived = self._age(job.id)
        healthy = lived >= how.healthy and job.reason is not Reason.CANNOT_START
        failures = 1 if healthy or last is None else last.failures + 1
        if failures > how.most or job.attempt >= MOST_ATTEMPTS:
            words = f"{failures} in a row" if failures > how.most else f"{job.attempt} in all"
            job.detail = f"{job.detail}; " if job.detail else ""
            job.detail += f"it is not started again: that were {words}"
            return False
        delay = how.delay if healthy or last is None else min(2 * last.delay, how.longest)
        begin = last.output_end if last else 0
        ended = Attempt(
            job.attempt,
            job.created_ns,
            job.ended_ns,
            lived,
            job.reason,
            job.exit_status,
            job.signal,
            begin,
            job.output_end,
            job.detail,
            delay,
            failures,
        )
        job.attempts = (*job.attempts, ended)
        return True

    def clear(self, live: LiveJob) -> None:
        """End what an attempt left behind."""
        self._stop_inside(live)
        live.being_stopped = True
        grace = live.job.request.grace
        self._turn.after_attempt(partial(self._engine.stop, live.job, grace, AS_EVER))

    def cleared(self, live: LiveJob) -> None:
        """Nothing is left of an attempt: the next one waits until it is time."""
        live.job.wait_again()
        self._turn.update(live)
        self._turn.after_commit(partial(self._wait, live))

    def _wait(self, live: LiveJob) -> None:
        if live.job.state is State.PENDING and self._jobs.get(live.job.id) is live:
            # The engine lets go of one attempt before it is told of another.
            self._jobs.forget(live)
            last = live.job.attempts[-1]
            self._pending.hold(live.job, last.delay * (1 + _JITTER * self._jitter()))


def _wanted(job: Job) -> bool:
    """Whether an end such as this one is to be followed by another attempt."""
    how = job.request.restart
    if job.reason is Reason.LOST:
        return how.persist
    if job.reason in _FINAL or how.when is RestartWhen.NEVER:
        return False
    if job.reason is not Reason.EXITED:
        return True
    if job.exit_status in how.final:
        return False
    return how.when is RestartWhen.ALWAYS or job.exit_status != 0
