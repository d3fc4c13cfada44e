"""That no two of an owner's jobs have one name as long as neither has ended."""

from jobworker.supervisor.errors import NameTaken
from jobworker.supervisor.job import Request, State
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.waiting.pending import Pending


class Names:
    """Looks at what there is: a name is free as soon as its job has ended, recorded or not."""

    def __init__(self, jobs: LiveJobs, pending: Pending, turn: Turn) -> None:
        self._jobs = jobs
        self._pending = pending
        self._turn = turn

    def check_free(self, request: Request) -> None:
        """Raise NameTaken where another job has the name of this one that is asked for."""
        if request.name and (other := self._holder(request.owner, request.name)):
            raise NameTaken(
                f"your job {other} has the name {request.name} and has not ended: "
                "use another name, or stop that job"
            )

    def _holder(self, owner: str, name: str) -> str:
        for live in self._jobs.named(owner, name):
            # One of which the program could not be executed will never have been there.
            if live.job.state is not State.ENDED and not self._turn.withdraws(live.job.id):
                return live.job.id
        return self._pending.named(owner, name)
