"""A job that has something left to do, as the core sees it."""

from dataclasses import dataclass

from jobworker.supervisor.job import Job, Reason, State, StopWay


@dataclass
class LiveJob:
    """`gone` says that no process of the job is left, `being_stopped` that its tree is being ended.

    `stop_after_start` is the grace, the reason and the way of a stop that came too early. One that
    has `waited` was on record before its start: a start that fails is its end. One that was
    `accepted` waits for its start elsewhere, or did. One that is `ready` runs, and its health check
    has passed.
    """

    job: Job
    gone: bool = False
    being_stopped: bool = False
    stop_after_start: tuple[float, Reason, StopWay] | None = None
    waited: bool = False
    accepted: bool = False
    ready: bool = False

    @property
    def over(self) -> bool:
        """Whether it, or an attempt, has nothing left to do but to be put on record."""
        ended = self.job.state in (State.ENDED, State.RESTARTING) and self.job.output_complete
        return ended and not self.being_stopped
