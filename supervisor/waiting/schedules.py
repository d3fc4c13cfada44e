"""Schedules: each run becomes a job that waits for its turn, on record together with that it ran.

The wall clock alone decides, as people mean it. What it does not reach in time, as the
host was off or the clock was set, is missed, and made up for by one run at most.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from time import time_ns

from jobworker.supervisor.errors import (
    Exhausted,
    InvalidRequest,
    NameTaken,
    NoSuchSchedule,
    SupervisorError,
)
from jobworker.supervisor.ipc.job_ids import JobIDs
from jobworker.supervisor.ipc.schedule_messages import AddSchedule, ChangeSchedule, Schedules
from jobworker.supervisor.job import DEFAULT_QUEUE, Request, State
from jobworker.supervisor.journal.schedules import StoredSchedules
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.schedule import Change, Overlap, Schedule
from jobworker.supervisor.waiting.names import Names
from jobworker.supervisor.waiting.pending import Pending

log = logging.getLogger(__name__)

# What an owner may have, and all together.
MOST_OF_AN_OWNER = 100
MOST_BYTES = 2 * 1024 * 1024
# How late a run may be that is not missed.
LATE_SECONDS = 60.0
# At least so often the clock is looked at: nobody tells that it was set.
LOOK_SECONDS = 10.0
# A clock that goes back by more was wrong before: what is due is found anew.
_WAS_WRONG_US = 3 * 3600 * 1_000_000
_SECOND_US = 1_000_000


class Runs:
    """The jobs that schedules start, and what is asked and done about them."""

    def __init__(
        self,
        jobs: LiveJobs,
        pending: Pending,
        names: Names,
        check: Callable[[Request], None],
        check_serving: Callable[[], None],
        stop: Callable[[str], None],
        newest: Callable[[], str],
    ) -> None:
        """`check` raises why something cannot be placed, `newest` is the newest job's ID."""
        self._jobs = jobs
        self._pending = pending
        self._names = names
        self._check = check
        self._check_serving = check_serving
        self.stop = stop
        self._newest = newest
        self._ids = JobIDs()

    def new_id(self) -> str:
        """An ID for a run, after that of every job there is."""
        self._ids.follow(self._newest())
        return self._ids.next()

    def going_on(self, job_id: str) -> bool:
        """Whether a run waits or has begun, and has not ended."""
        live = self._jobs.get(job_id)
        return job_id in self._pending or (live is not None and live.job.state is not State.ENDED)

    def check(self, request: Request) -> None:
        """Raise why such a run could never begin."""
        self._pending.why_wait(_in_some_queue(request), {})
        self._check(request)

    def submit(self, request: Request, failed: Callable[[SupervisorError], None]) -> None:
        """Have a run wait for its turn, or call `failed` with why it cannot be put on record.

        Raises SupervisorError.
        """
        self._check_serving()
        self._names.check_free(request)
        # What the owner may have is known when its turn has come.
        self._pending.submit(_in_some_queue(request), {}, failed)


class Scheduler:
    """Owns the schedules, all in memory and on record."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stored: StoredSchedules,
        turn: Turn,
        runs: Runs,
        now_us: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        """`now_us` is the wall clock."""
        self._loop = loop
        self._stored = stored
        self._turn = turn
        self._runs = runs
        self._now_us = now_us
        self._known = {schedule.key: schedule for schedule in stored.all()}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def begin(self) -> None:
        """Run what is due from here on."""
        self._look()

    def stop(self) -> None:
        """Run nothing more."""
        self._stopped = True
        self._set_timer(None)

    # -- what is asked for ---------------------------------------------------------------

    def handle(
        self, call: AddSchedule | ChangeSchedule | Schedules
    ) -> Callable[[], list[Schedule]]:
        """Do what is asked for; what is returned tells of it when that is on record.

        Raises NameTaken, Exhausted, InvalidRequest and NoSuchSchedule.
        """
        match call:
            case AddSchedule():
                told = self.add(call)
            case ChangeSchedule():
                told = self.change(call)
            case Schedules():
                return partial(self.of, call)
        return lambda: [told()]

    def of(self, asked: Schedules) -> list[Schedule]:
        """Those of an owner, or of all, by owner and name."""
        found = (one for key, one in self._known.items() if asked.owner in ("", key[0]))
        return sorted(found, key=lambda one: one.key)

    def add(self, asked: AddSchedule) -> Callable[[], Schedule]:
        """Have one run from here on; what is returned tells of it when that is on record.

        Raises NameTaken, Exhausted and InvalidRequest.
        """
        schedule = asked.schedule
        before = self._known.get(schedule.key)
        if before is not None and not asked.replace:
            raise NameTaken(f"you have a schedule {schedule.name}: remove or replace it")
        self._check_room(schedule)
        self._runs.check(schedule.request)
        if before is not None:
            schedule = replace(
                schedule, last_us=before.last_us, last_job=before.last_job, skipped=before.skipped
            )
        return self._change(before, self._armed(schedule))

    def change(self, asked: ChangeSchedule) -> Callable[[], Schedule]:
        """Change one; what is returned tells of it when that is on record.

        Raises NoSuchSchedule.
        """
        schedule = self._known.get((asked.owner, asked.name))
        if schedule is None:
            raise NoSuchSchedule(f"{asked.owner} has no schedule {asked.name[:64]!r}")
        match asked.change:
            case Change.PAUSE:
                return self._change(schedule, replace(schedule, paused=True, next_us=0))
            case Change.RESUME if schedule.paused:
                return self._change(schedule, self._armed(replace(schedule, paused=False)))
            case Change.RENEW:
                request = replace(schedule.request, asker=asked.asker)
                return self._change(schedule, replace(schedule, request=request))
            case Change.REMOVE:
                return self._remove(schedule)
            case Change.RUN:
                now_us = self._now_us()
                self._run(schedule, now_us, schedule.next_us, looked_us=schedule.looked_us)
        return lambda: self._known.get(schedule.key, schedule)

    def _check_room(self, schedule: Schedule) -> None:
        others = [one for key, one in self._known.items() if key != schedule.key]
        if sum(one.key[0] == schedule.key[0] for one in others) >= MOST_OF_AN_OWNER:
            raise Exhausted(f"you have {MOST_OF_AN_OWNER} schedules, which is the most")
        if sum(map(_size, [*others, schedule])) > MOST_BYTES:
            raise Exhausted("the server's schedules take all the room there is for them")

    def _armed(self, schedule: Schedule) -> Schedule:
        """As it is to be from now on. Raises InvalidRequest."""
        now_us = self._now_us()
        try:
            return replace(schedule, next_us=schedule.due_after(now_us), looked_us=now_us)
        except (ValueError, StopIteration):
            words = f"{schedule.cron!r} is never again"
            raise InvalidRequest(words, "schedule.cron") from None

    def _change(self, before: Schedule | None, after: Schedule) -> Callable[[], Schedule]:
        outcome = _Outcome(after)
        self._put(after, failed=partial(self._undo, before, outcome))
        self._look()
        return outcome.told

    def _remove(self, schedule: Schedule) -> Callable[[], Schedule]:
        outcome = _Outcome(schedule)
        del self._known[schedule.key]
        delete = partial(self._stored.delete, schedule)
        self._turn.write(schedule.key, delete, partial(self._undo, schedule, outcome))
        return outcome.told

    def _put(self, schedule: Schedule, failed: Callable[[], None] | None = None) -> None:
        self._known[schedule.key] = schedule
        self._turn.write(schedule.key, partial(self._stored.put, schedule), failed)

    def _undo(self, before: Schedule | None, outcome: "_Outcome") -> None:
        """What was asked for cannot be put on record: it is as before."""
        outcome.undone = True
        if before is None:
            self._known.pop(outcome.schedule.key, None)
        else:
            self._known[before.key] = before

    # -- when it is time -----------------------------------------------------------------

    def _look(self) -> None:
        """Run what is due, and look again when the next is."""
        if self._stopped:
            return
        now_us = self._now_us()
        for schedule in list(self._known.values()):
            if not schedule.paused:
                self._look_at(schedule, now_us)
        self._set_timer(self._seconds_to_wait(now_us))

    def _look_at(self, schedule: Schedule, now_us: int) -> None:
        if schedule.looked_us - now_us > _WAS_WRONG_US:
            self._put(self._next(schedule, now_us))
            return
        if not 0 < schedule.next_us <= now_us:
            return
        due_us = schedule.next_us
        after = self._next(schedule, now_us)
        late = (now_us - due_us) / _SECOND_US
        if late > LATE_SECONDS and not schedule.catch_up:
            words = f"it was missed by {_span(late)}: the service was down, or the clock set"
            self._skip(after, due_us, words)
        else:
            self._run(after, due_us, after.next_us, looked_us=now_us)

    def _next(self, schedule: Schedule, now_us: int) -> Schedule:
        """With when it is due after now; never again is as paused."""
        try:
            return replace(schedule, next_us=schedule.due_after(now_us), looked_us=now_us)
        except (ValueError, StopIteration) as error:
            # Time zones change with the host's files.
            log.warning("schedule %s of %s is paused: %s", schedule.name, schedule.key[0], error)
            return replace(schedule, next_us=0, paused=True, looked_us=now_us)

    def _run(self, schedule: Schedule, due_us: int, next_us: int, *, looked_us: int) -> None:
        """Have a job begin, or say why not."""
        schedule = replace(schedule, next_us=next_us, looked_us=looked_us)
        if schedule.last_job and self._runs.going_on(schedule.last_job):
            if schedule.overlap is Overlap.SKIP:
                words = f"the run before, job {schedule.last_job}, has not ended"
                self._skip(schedule, due_us, words)
                return
            if schedule.overlap is Overlap.REPLACE:
                self._runs.stop(schedule.last_job)
        request = replace(schedule.request, id=self._runs.new_id())

        def failed(error: SupervisorError) -> None:
            if self._known.get(schedule.key, schedule).last_job == request.id:
                self._skip(replace(schedule, last_job=""), due_us, str(error))

        try:
            self._runs.submit(request, failed)
        except SupervisorError as error:
            self._skip(schedule, due_us, str(error))
            return
        log.info("schedule %s of %s runs as job %s", schedule.name, request.owner, request.id)
        self._put(replace(schedule, last_us=due_us, last_job=request.id, skipped=""))

    def _skip(self, schedule: Schedule, due_us: int, why: str) -> None:
        log.info("schedule %s of %s is not run: %s", schedule.name, schedule.key[0], why)
        self._put(replace(schedule, last_us=due_us, skipped=why))

    def _seconds_to_wait(self, now_us: int) -> float | None:
        coming = [one.next_us - now_us for one in self._known.values() if one.next_us]
        if not coming:
            return None
        return max(0.0, min(LOOK_SECONDS, min(coming) / _SECOND_US))

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._look)


def _in_some_queue(request: Request) -> Request:
    waiting = request.waiting
    return replace(request, waiting=replace(waiting, queue=waiting.queue or DEFAULT_QUEUE))


def _size(schedule: Schedule) -> int:
    request = schedule.request
    texts: Iterable[str] = (*request.argv, *request.environment, *request.environment.values())
    return sum(map(len, texts))


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


class _Outcome:
    """What came of a change, to be told at the end of the turn."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.undone = False

    def told(self) -> Schedule:
        """Raises Exhausted where it could not be put on record."""
        if self.undone:
            raise Exhausted("that cannot be put on record: is the disk full?")
        return self.schedule
