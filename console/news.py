"""Whether anything has happened at all: what spares lists that nobody changed."""

from jobworker.supervisor import JobSnapshot, State


class News:
    """`version` is another whenever the state of a job may be another than before."""

    def __init__(self) -> None:
        self.version = 0
        # Of those that have not ended.
        self._states: dict[str, State] = {}

    def told(self, job: JobSnapshot) -> None:
        """The supervisor has told of a job as it is now; also where only its output grew."""
        before = self._states.pop(job.id, None)
        if not job.ended:
            self._states[job.id] = job.state
        if job.ended or job.state is not before:
            self.version += 1
