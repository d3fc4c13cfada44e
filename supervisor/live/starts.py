"""From a request to a job whose program executes, or to an error and no job at all."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from errno import ENOENT
from functools import partial
from time import time_ns

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import (
    CannotExecute,
    Exhausted,
    InvalidRequest,
    SupervisorError,
    fitting,
)
from jobworker.supervisor.job import Happening, Job, Reason, Request, after
from jobworker.supervisor.journal.start_keys import check_same
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.turn import Turn

log = logging.getLogger(__name__)

# Called once with how the start came out.
Outcome = Callable[[LiveJob | SupervisorError], None]


@dataclass
class _Pending:
    """A start whose outcome is not known yet, and who waits for it."""

    request: Request
    outcomes: list[Outcome] = field(default_factory=list)


class Starts:
    """The starts in progress: who waits for them, and what becomes of their records."""

    def __init__(
        self, engine: Engine, jobs: LiveJobs, turn: Turn, follows: Callable[[LiveJob], bool]
    ) -> None:
        """`follows` says of a job on record whether it is started again after it failed to."""
        self._follows = follows
        self._engine = engine
        self._jobs = jobs
        self._turn = turn
        self._pending: dict[str, _Pending] = {}

    def pending(self, request: Request) -> bool:
        """Whether this, or the same under the owner's request ID, is being started already.

        Raises InvalidRequest when another owner's start has the ID, and KeyTaken
        when the request ID is starting something else.
        """
        return self._find(request) is not None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._pending)

    def join(self, request: Request, outcome: Outcome) -> None:
        """Wait for the outcome of a start that is `pending`."""
        found = self._find(request)
        if found is not None:
            found.outcomes.append(outcome)

    def _find(self, request: Request) -> _Pending | None:
        known = self._pending.get(request.id)
        if known is not None:
            if known.request.owner != request.owner:
                raise InvalidRequest(f"the job ID {request.id} is taken")
            check_same(known.request, request)
            return known
        if not request.request_id:
            return None
        key = (request.owner, request.request_id)
        for other in self._pending.values():
            if (other.request.owner, other.request.request_id) == key:
                check_same(other.request, request)
                return other
        return None

    def check(self, request: Request) -> None:
        """Raise what `begin` would; nothing is begun."""
        self._engine.place(request)

    def begin(self, request: Request, outcome: Outcome) -> None:
        """Put a job on record, and have it launched then.

        Raises InvalidRequest and CannotPlace for one that cannot be.
        """
        job = Job(self._engine.place(request), time_ns())
        self._engine.prepare(job)
        live = LiveJob(job)
        self._pending[job.id] = _Pending(job.request, [outcome])
        self._jobs.add(live)
        self._turn.insert(
            live, then=partial(self._launch, live), failed=partial(self._abandon, live)
        )

    def begin_waiting(self, job: Job, undone: Callable[[str], None]) -> None:
        """As `begin`, of a job that waited on record; its place is decided anew.

        Calls `undone` with why where the start cannot be put on record.
        """
        begun = replace(job, request=self._engine.place(job.request), created_ns=time_ns())
        begun.state = after(job.state, Happening.TURN_CAME)
        self._engine.prepare(begun)
        live = LiveJob(begun, waited=True)
        self._pending[job.id] = _Pending(begun.request)
        self._jobs.add(live)

        def failed(reason: str) -> None:
            self._jobs.forget(live)
            self._pending.pop(job.id, None)
            undone(reason)

        self._turn.insert(live, then=partial(self._launch, live), failed=failed, waited=True)
        self._turn.tell(live)

    def _launch(self, live: LiveJob) -> None:
        """Have a job executed that is on record; where that fails, it leaves no job behind."""
        try:
            self._engine.launch(live.job)
        except Exception as error:
            log.exception("job %s could not be started", live.job.id)
            self.failed(live, fitting(error))

    def resume(self, live: LiveJob) -> None:
        """Another supervisor has begun this one; nobody waits for it (yet)."""
        live.waited = bool(live.job.request.waiting.queue or live.job.attempts)
        self._pending[live.job.id] = _Pending(live.job.request)

    def accepted(self, live: LiveJob) -> None:
        """It waits elsewhere, and who asked for it need not: if it fails, that goes on record."""
        live.accepted = live.waited = True
        # Before it is answered: whoever comes after this process must know that it was.
        self._turn.update(live)
        self._settle(live.job.id, live)

    def executed(self, live: LiveJob) -> None:
        """The program executes."""
        live.job.state = after(live.job.state, Happening.EXECUTED)
        if live.accepted:
            self._turn.update(live)
        else:
            # Not for the record: the engine can tell, as long as that matters.
            self._turn.tell(live)
        self._settle(live.job.id, live)

    def failed(self, live: LiveJob, error: SupervisorError) -> None:
        """A program that was never executed leaves no job behind, unless that was on record."""
        if live.waited:
            self._record_failure(live, error)
            return
        self._turn.withdraw(live.job.id)
        self._turn.after_commit(partial(self._jobs.forget, live))
        self._settle(live.job.id, error)

    def _record_failure(self, live: LiveJob, error: SupervisorError) -> None:
        job = live.job
        job.reason, job.detail = Reason.CANNOT_START, str(error)
        if live.stop_after_start is not None:
            job.reason, job.detail = live.stop_after_start[1], ""
        job.exit_status = _exit_status(error)
        job.ended_ns = time_ns()
        job.output_complete = True
        if self._follows(live):
            self._settle(job.id, live)
            return
        job.state = after(job.state, Happening.GIVEN_UP)
        self._turn.update(live)
        self._jobs.retire(live)
        self._settle(job.id, live)

    def _abandon(self, live: LiveJob, reason: str) -> None:
        """Undo what could not be put on record."""
        self._jobs.forget(live)
        self._settle(
            live.job.id,
            Exhausted(f"the start cannot be put on record ({reason}): is the disk full?"),
        )

    def _settle(self, job_id: str, outcome: LiveJob | SupervisorError) -> None:
        pending = self._pending.pop(job_id, None)
        for tell in pending.outcomes if pending else ():
            tell(outcome)


def _exit_status(error: SupervisorError) -> int:
    """What a shell, or docker run, ends with where a program does not begin."""
    if isinstance(error, CannotExecute) and error.program:
        return 127 if error.errno == ENOENT else 126
    return 125
