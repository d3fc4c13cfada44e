"""From a request to a job whose program executes, or to an error and no job at all."""

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import time_ns

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.core.live_jobs import LiveJobs
from jobworker.supervisor.core.turn import Turn
from jobworker.supervisor.errors import (
    CannotExecute,
    Exhausted,
    InvalidRequest,
    SupervisorError,
    fitting,
    words,
)
from jobworker.supervisor.job import Happening, Job, Request, State, after
from jobworker.supervisor.journal.start_keys import check_same
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.live_job import LiveJob
from jobworker.supervisor.local.placement import Placement
from jobworker.supervisor.local.pool import Launcher, LauncherPool
from jobworker.supervisor.output.recorder import Recorder
from jobworker.supervisor.quotas import Subject, subjects_of

log = logging.getLogger(__name__)

_TOO_LONG = (
    "one argument or variable exceeds 128 KiB, or all together exceed what execve(2) takes "
    "on this host (a quarter of the stack limit): pass the rest in a file"
)

# Called once with how the start came out.
Outcome = Callable[[LiveJob | SupervisorError], None]


@dataclass
class _Pending:
    """A start whose outcome is not known yet, and who waits for it."""

    request: Request
    outcomes: list[Outcome] = field(default_factory=list)


class Starts:
    """The starts in progress. `started` is called for every job whose program executes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: SupervisorConfig,
        keeper: KeeperLink,
        jobs: LiveJobs,
        turn: Turn,
        *,
        placement: Placement,
        make_pool: Callable[[Callable[[], None]], LauncherPool],
        recorder: Callable[[Request], Recorder],
        started: Callable[[LiveJob], None],
    ) -> None:
        self._loop = loop
        self._config = config
        self._keeper = keeper
        self._jobs = jobs
        self._turn = turn
        self._placement = placement
        self._recorder = recorder
        self._started = started
        self._pending: dict[str, _Pending] = {}
        self._queue: deque[Request] = deque()
        self.pool = make_pool(self._serve_queue)

    def pending(self, request: Request) -> bool:
        """Whether this, or the same under the owner's request ID, is being started already.

        Raises InvalidRequest when another owner's start has the ID, and KeyTaken
        when the request ID is starting something else.
        """
        return self._find(request) is not None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._pending)

    def queued(self, subject: Subject) -> int:
        """How many starts of a user or a tenant have no launcher yet."""
        return sum(subject in subjects_of(request) for request in self._queue)

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
        self._placement.place(request)

    def begin(self, request: Request, outcome: Outcome) -> None:
        """Start a job as soon as there is a launcher for it.

        Raises InvalidRequest and CannotPlace for one that there can be none for.
        """
        request = self._placement.place(request)
        self._pending[request.id] = _Pending(request, [outcome])
        self._queue.append(request)
        self._serve_queue()

    def resume(self, live: LiveJob) -> None:
        """Go on with a start that another supervisor began; nobody waits for it (yet).

        The launcher may have had its orders or not: it takes them once.
        """
        self._pending[live.job.id] = _Pending(live.job.request)
        self._launch(live)

    def fail_queued(self, error: SupervisorError) -> None:
        """Fail every start that has no launcher yet."""
        while self._queue:
            self._settle(self._queue.popleft().id, error)

    def _serve_queue(self) -> None:
        """Bind queued starts to ready launchers; called when there are more of either."""
        while self._queue:
            launcher = self.pool.take()
            if launcher is not None:
                self._bind(self._queue.popleft(), launcher)
            elif self.pool.failing:
                self.fail_queued(
                    Exhausted("the host has no room for another process: try again later")
                )
            else:
                return

    def _bind(self, request: Request, launcher: Launcher) -> None:
        job = Job(
            request,
            time_ns(),
            pid=launcher.pid,
            pid_start=launcher.start,
            cgroup=launcher.cgroup,
        )
        live = LiveJob.bound(job, self._recorder(request), launcher)
        # Kept before it is on record: so what is on record is always kept, too.
        self._keeper.keep(job.id, live.descriptors())
        self._jobs.add(live)
        self._turn.insert(
            live, then=partial(self._try_launch, live), failed=partial(self._abandon, live)
        )

    def _try_launch(self, live: LiveJob) -> None:
        """Give orders for a job on record; where that fails, it leaves no job behind."""
        try:
            self._launch(live)
        except Exception as error:
            log.exception("job %s could not be started", live.job.id)
            self._withdraw(live, fitting(error))

    def _launch(self, live: LiveJob) -> None:
        """Give orders for a job that is on record."""
        request = live.job.request
        if live.cgroup is not None:
            try:
                live.cgroup.limit(request.limits, self._placement.controllers)
            except OSError as error:
                number = error.errno or 0
                what = f"keep the job's limits: writing {error.filename}: {words(number)}"
                self._withdraw(live, CannotExecute(f"cannot {what}", number))
                return
        live.order(self._placement.spec(request))
        self._listen(live)

    def _abandon(self, live: LiveJob, reason: str) -> None:
        """Undo what could not be put on record; the launcher never gets orders and ends."""
        self._forget(live)
        self._settle(
            live.job.id,
            Exhausted(f"the start cannot be put on record ({reason}): is the disk full?"),
        )

    def _listen(self, live: LiveJob) -> None:
        """Hear from the launcher, but not for ever."""
        assert live.launcher is not None  # noqa: S101 - a start in progress has one
        seconds = self._config.start_seconds
        why = f"did not begin to execute within {seconds:g} s: is its file system reachable?"
        overdue = self._loop.call_later(seconds, self._overdue, live, why, errno.ETIMEDOUT)
        self._loop.add_reader(live.launcher.fileno(), self._heard, live, overdue)

    def _heard(self, live: LiveJob, overdue: asyncio.TimerHandle) -> None:
        overdue.cancel()
        self.settle(live)

    def settle(self, live: LiveJob) -> None:
        """The launcher has failed, or its socket has closed: then the program executes.

        Does nothing for a job that is settled.
        """
        if live.launcher is None or live.job.state is not State.STARTING:
            return
        failure = live.launch_failure()
        self._loop.remove_reader(live.launcher.fileno())
        if failure is not None:
            number, step = failure
            message = f"cannot {step}: {words(number)}"
            if number == errno.E2BIG:
                message += f": {_TOO_LONG}"
            program = step.startswith("execute ")
            self._withdraw(live, CannotExecute(message, number, program=program))
            return
        live.close_launcher()
        live.job.state = after(live.job.state, Happening.EXECUTED)
        # Not for the record: that it executes is to be seen on the launcher's
        # socket, of which the keeper has a copy, as long as that matters.
        self._turn.tell(live)
        self._settle(live.job.id, live)
        self._started(live)

    def give_up_after(self, live: LiveJob, seconds: float) -> None:
        """Wait no longer than that for the program to execute: the job is to be stopped."""
        why = "was stopped before it began to execute"
        self._loop.call_later(seconds, self._overdue, live, why, errno.ECANCELED)

    def _overdue(self, live: LiveJob, why: str, number: int) -> None:
        if live.job.state is State.STARTING and self._jobs.get(live.job.id) is live:
            program = live.job.request.argv[0]
            self._withdraw(live, CannotExecute(f"{program} {why}", number))

    def _withdraw(self, live: LiveJob, error: SupervisorError) -> None:
        """A program that was never executed leaves no job behind."""
        live.kill_main()
        self._turn.withdraw(live.job.id)
        self._turn.after_commit(partial(self._forget, live))
        self._settle(live.job.id, error)

    def _forget(self, live: LiveJob) -> None:
        self._jobs.forget(live)
        self.pool.reclaim(live.job.cgroup)

    def _settle(self, job_id: str, outcome: LiveJob | SupervisorError) -> None:
        pending = self._pending.pop(job_id, None)
        for tell in pending.outcomes if pending else ():
            tell(outcome)
