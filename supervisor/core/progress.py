"""What becomes of jobs, as their engine tells it."""

from collections.abc import Callable
from time import time_ns

from jobworker.supervisor.core.pauses import Pauses
from jobworker.supervisor.engine import Engine, Exit
from jobworker.supervisor.errors import SupervisorError
from jobworker.supervisor.job import Happening, Job, State, after, end_reason
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.starts import Starts
from jobworker.supervisor.live.turn import Turn


class Progress:
    """Takes an engine's Reports. `started` is called for each job whose program executes.

    `overflowed` is called for one that runs and whose output has reached its limit, `follows`
    says of one of which an attempt has ended whether that was not the last, and `ended` is
    called with each that has.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: LiveJobs,
        starts: Starts,
        pauses: Pauses,
        turn: Turn,
        *,
        started: Callable[[LiveJob], None],
        overflowed: Callable[[LiveJob], None],
        follows: Callable[[LiveJob], bool],
        ended: Callable[[Job], None],
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._starts = starts
        self._pauses = pauses
        self._turn = turn
        self._started = started
        self._overflowed = overflowed
        self._follows = follows
        self._ended = ended

    def accepted(self, job: Job) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            self._starts.accepted(live)

    def executed(self, job: Job) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            self._starts.executed(live)
            self._started(live)

    def failed(self, job: Job, error: SupervisorError) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            self._starts.failed(live, error)
            if job.state is not State.RESTARTING:
                self._ended(job)

    def noted(self, job: Job) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            self._turn.note(live)

    def exited(self, job: Job, how: Exit) -> None:
        """As in Reports."""
        live = self._jobs.get(job.id)
        if live is not None and (job.state.going_on or job.state is State.STOPPING):
            self._record_exit(live, how)
        self._turn.after_commit(how.recorded)

    def _record_exit(self, live: LiveJob, how: Exit) -> None:
        job = live.job
        job.usage = how.usage
        job.signal = max(0, -how.code)
        job.exit_status = max(0, how.code)
        job.reason = end_reason(job.state, job.reason, job.signal, oom=how.out_of_memory)
        if how.reason and job.state is not State.STOPPING:
            job.reason, job.detail = how.reason, how.detail
        job.ended_ns = time_ns()
        job.output_complete = job.output_complete or not self._engine.output_open(job)
        if self._follows(live):
            return
        job.state = after(job.state, Happening.EXIT)
        self._turn.learned(live)
        self._jobs.retire(live)
        self._ended(job)

    def grew(self, job: Job) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            self._turn.tell(live)

    def complete(self, job: Job) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            job.output_complete = True
            self._turn.learned(live)
            self._jobs.retire(live)

    def overflowed(self, job: Job) -> None:
        """As in Reports."""
        live = self._jobs.get(job.id)
        if live is not None and job.state.going_on:
            self._overflowed(live)

    def paused(self, job: Job) -> None:
        """As in Reports."""
        self._pauses.settled(job)

    def stopped(self, job: Job) -> None:
        """As in Reports."""
        if (live := self._jobs.get(job.id)) is not None:
            live.being_stopped = False
            live.gone = True
            self._turn.tell(live)
            self._jobs.retire(live)
