"""Having jobs stand still and go on: what is on record of it, and who waits for it."""

from collections.abc import Callable
from functools import partial

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import AlreadyEnded, NotRunning
from jobworker.supervisor.job import Happening, Job, State, after
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.turn import Turn


class Pauses:
    """A job that is paused on record is made to stand still by whoever comes after this process.

    So a pause is recorded before it begins, and a resume once it is done.
    """

    def __init__(self, engine: Engine, turn: Turn) -> None:
        self._engine = engine
        self._turn = turn
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def pause(self, live: LiveJob, then: Callable[[], None]) -> None:
        """Have the job stand still; `then` is called when it does, or goes on or ends instead.

        Raises AlreadyEnded, NotRunning, and CannotPlace where its engine has no pauses.
        """
        job = live.job
        _check(job)
        self._engine.check_can_pause()
        if job.state is not State.PAUSED:
            job.state = after(job.state, Happening.PAUSE_ASKED)
            self._turn.update(live)
        self._waiting.setdefault(job.id, []).append(then)
        self._turn.after_commit(partial(self._hold, job))

    def _hold(self, job: Job) -> None:
        if job.state is State.PAUSED:
            self._engine.pause(job)
        else:
            self.settled(job)

    def settled(self, job: Job) -> None:
        """The job stands still, or is not to any more."""
        for then in self._waiting.pop(job.id, ()):
            then()

    def resume(self, live: LiveJob) -> None:
        """Have the job go on. Raises AlreadyEnded, NotRunning, and OSError if it cannot."""
        job = live.job
        _check(job)
        self._engine.resume(job)
        if job.state is not State.RUNNING:
            job.state = after(job.state, Happening.RESUME_ASKED)
            self._turn.update(live)


def _check(job: Job) -> None:
    if job.state is State.ENDED:
        raise ended(job.id)
    if not job.state.going_on:
        what = "started" if job.state is State.STARTING else "stopped"
        raise NotRunning(f"job {job.id} is being {what}: only one that runs is paused or resumed")


def ended(job_id: str) -> AlreadyEnded:
    """The error for a job that has ended."""
    return AlreadyEnded(f"job {job_id} has ended: only one that runs is paused or resumed")
