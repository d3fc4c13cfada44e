"""Jobs that wait for their turn: on record, asked for again when it comes, and started then."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import time_ns

from jobworker.supervisor.config import QueueConfig
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import Exhausted, InvalidRequest, QuotaReached, SupervisorError
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.server import Client
from jobworker.supervisor.job import (
    Entry,
    Happening,
    Job,
    Reason,
    Request,
    State,
    Waiting,
    after,
)
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.journal.start_keys import check_same
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.starts import Starts
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.quotas import Kind, Quota, Quotas
from jobworker.supervisor.waiting.after import After, Settled
from jobworker.supervisor.waiting.delays import Delays
from jobworker.supervisor.waiting.queue import Queue
from jobworker.supervisor.waiting.room import Room

log = logging.getLogger(__name__)

# Of jobs whose turn has come, so many are asked about at once.
MOST_ASKED = 64
# How often is looked for room that nobody tells of, such as that of a quota over time.
LOOK_SECONDS = 1.0
# What a job ends with that was never started: as `run` does for it.
NEVER_STARTED = 125


class Pending:
    """Owns what waits. Only in memory is a job's place; all else is in its record.

    `check_serving` raises why nothing at all can be started now.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queues: Mapping[str, QueueConfig],
        jobs: LiveJobs,
        journal: Journal,
        turn: Turn,
        engine: Engine,
        starts: Starts,
        quotas: Quotas,
        check_serving: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._jobs = jobs
        self._journal = journal
        self._turn = turn
        self._engine = engine
        self._starts = starts
        self._quotas = quotas
        self._room = Room(
            queues, jobs, quotas, lambda: [entry for entry, _ in self._asked.values()]
        )
        self._check_serving = check_serving
        self._queue = Queue()
        # Those that come after others, until these have ended.
        self._after = After()
        # Those of which an attempt has ended, until it is time for another.
        self._delays = Delays(loop, self._add)
        # Before when some are not started, as long as they wait.
        self._times: dict[str, Waiting] = {}
        # Those that wait in vain, and why, until they are on record.
        self._in_vain: dict[str, str] = {}
        # Those that are not on record yet, by ID and by their owner's key.
        self._fresh: dict[str | tuple[str, str], Request] = {}
        # Those whose turn has come, until it is known whether they may be started.
        self._asked: dict[str, tuple[Entry, Client]] = {}
        self._fronts: list[Client] = []
        # Why nothing is started, and until when that need not be asked again.
        self._held = ("", 0.0)
        self._looking = False
        self._ticking = False

    # -- coming and going --------------------------------------------------------------

    def recover(self) -> None:
        """Go on with what another supervisor has left waiting."""
        for entry, waiting, again in list(self._journal.waiting()):
            if again and (job := self._journal.find(entry.id)) is not None:
                # For how long it has waited nobody knows.
                self.hold(job, job.attempts[-1].delay)
                continue
            # What was removed since had ended as it was to, or nobody would wait for it.
            there = tuple(one for one in waiting.after if self._is_there(one))
            self._wait(entry, replace(waiting, after=there))
            self._expire_after(entry.id, waiting.timeout)
        self.look_soon()

    def hold(self, job: Job, seconds: float) -> None:
        """Have a job wait of which an attempt has ended: for so long, and then for its turn.

        What it came after has ended before the first attempt, and for how long it may wait
        for its turn was said of that.
        """
        self._delays.hold(_entry(job.request), seconds)
        # There is room for others.
        self.look_soon()

    def _add(self, entry: Entry) -> None:
        self._times.pop(entry.id, None)
        self._queue.add(entry)
        self.look_soon()

    def why_wait(self, request: Request, quotas: Mapping[Kind, Quota]) -> str:
        """Why a job has to wait that is asked for now; empty if there is room for it.

        Raises InvalidRequest for a queue that is not there.
        """
        name = request.waiting.queue
        self._room.check_queue(name)
        if [self._outcome(other) for other in request.waiting.after]:
            # Where they have ended, how decides: see `_wait`.
            return "others come before it"
        if request.waiting.at_us or request.waiting.delay:
            return "it is not time yet"
        if self._queue.any_in(name):
            return "others wait"
        return self._room.none_for(name, request, quotas)

    def submit(
        self,
        request: Request,
        quotas: Mapping[Kind, Quota],
        failed: Callable[[SupervisorError], None],
    ) -> None:
        """Have a job wait; it is on record when the turn ends, or has `failed` to be.

        Raises InvalidRequest and CannotPlace for one that could not be started.
        """
        # Whether they are there.
        for other in request.waiting.after:
            self._outcome(other)
        job = Job(self._engine.place(request), time_ns(), state=State.PENDING)
        waiting = request.waiting
        entry = _entry(request)
        self._room.note_if_told(entry, quotas)

        names: list[str | tuple[str, str]] = [job.id]
        if request.request_id:
            names.append((request.owner, request.request_id))
        self._fresh.update(dict.fromkeys(names, request))

        def settled() -> str:
            for name in names:
                self._fresh.pop(name, None)
            self.look_soon()
            return self._in_vain.pop(job.id, "")

        def recorded() -> None:
            self._turn.tell(LiveJob(job))
            if why := settled():
                self.give_up(LiveJob(job), Reason.DEPENDENCY_FAILED, why)

        def abandon(reason: str) -> None:
            settled()
            self._forget(job.id)
            failed(Exhausted(f"the job cannot be put on record ({reason}): is the disk full?"))

        self._turn.insert(LiveJob(job), then=recorded, failed=abandon)
        self._wait(entry, waiting)
        self._expire_after(job.id, request.waiting.timeout)
        self._tick()

    def submitted(self, request: Request) -> str:
        """The ID of the job that this, or an earlier request under its key, has wait in this turn.

        Empty if there is none. Raises KeyTaken where that asked for something else.
        """
        known = self._fresh.get(request.id) or self._fresh.get((request.owner, request.request_id))
        if known is None:
            return ""
        check_same(known, request)
        return known.id

    def named(self, owner: str, name: str) -> str:
        """The ID of the owner's job of this name that waits; empty for none."""
        asked = (entry for entry, _ in self._asked.values())
        due = (one.id for one in asked if (one.owner, one.name) == (owner, name))
        places = self._queue, self._after, self._delays
        return next(due, "") or next(filter(None, (one.named(owner, name) for one in places)), "")

    def __contains__(self, job_id: str) -> bool:
        places = self._queue, self._after, self._delays
        return job_id in self._asked or any(one.get(job_id) is not None for one in places)

    def __len__(self) -> int:
        return len(self._queue) + len(self._asked) + len(self._after) + len(self._delays)

    def give_up(self, live: LiveJob, why: Reason, detail: str = "") -> None:
        """End a job that waits."""
        job = live.job
        self._forget(job.id)
        job.state = after(job.state, Happening.GIVEN_UP)
        job.reason, job.detail, job.exit_status = why, detail, NEVER_STARTED
        if job.attempts:
            # What it has done is what counts.
            last = job.attempts[-1]
            job.exit_status, job.signal = last.exit_status, last.signal
        job.ended_ns = time_ns()
        job.output_complete = live.gone = True
        self._jobs.add(live)
        self._turn.update(live)
        self._jobs.retire(live)
        # Not at once: one may wait for the other, and so on.
        self._loop.call_soon(self.ended, job)

    def _forget(self, job_id: str) -> None:
        self._queue.discard(job_id)
        self._after.discard(job_id)
        self._delays.discard(job_id)
        self._times.pop(job_id, None)
        self._asked.pop(job_id, None)

    # -- what others come after ----------------------------------------------------------

    def ended(self, job: Job) -> None:
        """There may be room now, and for some it is time who were to come after it."""
        self._settle(self._after.ended(job))
        self.look_soon()

    def _wait(self, entry: Entry, waiting: Waiting) -> None:
        """Have a job wait: for others if it must, then for its time, then in its queue."""
        if waiting.at_us or waiting.delay:
            self._times[entry.id] = waiting
        if not waiting.after:
            self._wait_for_time(entry)
            return
        others = {other: self._outcome(other) for other in waiting.after}
        ready = [other for other in others if self._is_ready(other)]
        self._settle(self._after.add(entry, waiting.outcome, others, ready))

    def _wait_for_time(self, entry: Entry) -> None:
        waiting = self._times.get(entry.id)
        if waiting is None:
            self._queue.add(entry)
        elif waiting.at_us:
            self._delays.hold_until(entry, waiting.at_us)
        else:
            waited = self._journal.clock.age_seconds(entry.id)
            self._delays.hold(entry, max(0.0, waiting.delay - waited))

    def ready(self, live: LiveJob) -> None:
        """For some it is time who were to come after it."""
        settled = self._after.ready(live.job.id)
        if settled.ready:
            self._settle(settled)
            self.look_soon()

    def _is_ready(self, job_id: str) -> bool:
        live = self._jobs.get(job_id)
        return live is not None and live.ready and live.job.state.going_on

    def _is_there(self, job_id: str) -> bool:
        return self._jobs.get(job_id) is not None or self._journal.find(job_id) is not None

    def _outcome(self, job_id: str) -> Job | None:
        """How a job has ended; None if it has not. Raises InvalidRequest where there is none."""
        if job_id in self:
            return None
        live = self._jobs.get(job_id)
        job = live.job if live is not None else self._journal.find(job_id)
        if job is None:
            raise InvalidRequest(f"there is no job {job_id} to come after", "after")
        return job if job.state is State.ENDED else None

    def _settle(self, settled: Settled) -> None:
        for entry in settled.ready:
            self._wait_for_time(entry)
        for entry, why in settled.in_vain:
            job = None if entry.id in self._fresh else self._journal.find(entry.id)
            if job is None:
                self._in_vain[entry.id] = why
            else:
                self.give_up(LiveJob(job), Reason.DEPENDENCY_FAILED, why)

    def _expire_after(self, job_id: str, timeout: float) -> None:
        if timeout:
            waited = self._journal.clock.age_seconds(job_id)
            self._loop.call_later(max(0.0, timeout - waited), self._expired, job_id, timeout)

    def _expired(self, job_id: str, timeout: float) -> None:
        if job_id in self and (job := self._journal.find(job_id)) is not None:
            self.give_up(LiveJob(job), Reason.QUEUE_TIMEOUT, f"it waited for {timeout:g} s")

    # -- whose turn it is --------------------------------------------------------------

    def turns(self, client: Client) -> None:
        """This client is asked about those whose turn has come, from here on."""
        self._fronts = [one for one in self._fronts if not one.lost and one is not client]
        self._fronts.append(client)
        self.look_soon()

    def client_gone(self, client: Client) -> None:
        """It will not answer any more."""
        self._fronts = [one for one in self._fronts if one is not client]
        for entry, asked in list(self._asked.values()):
            if asked is client:
                del self._asked[entry.id]
                self._queue.add(entry)
        self.look_soon()

    def look_soon(self) -> None:
        """There may be room: look at the end of this turn of the loop."""
        if len(self._queue) and not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)
        self._tick()

    def _tick(self) -> None:
        if len(self._queue) and not self._ticking:
            self._ticking = True
            self._loop.call_later(LOOK_SECONDS, self._ticked)

    def _ticked(self) -> None:
        self._ticking = False
        self.look_soon()

    def _look(self) -> None:
        self._looking = False
        words, until = self._held
        if words and self._loop.time() < until:
            return
        running = self._room.running()
        while len(self._asked) < MOST_ASKED:
            entry = self._queue.next(running, self._room.blocked)
            if entry is None:
                return
            self._turn_of(entry)
            if self._queue.get(entry.id) is not None:
                # It is put back: nothing can be started now.
                return

    def explain(self, job_id: str) -> str:
        """What a job waits for, in words."""
        if others := self._after.explain(job_id):
            return others
        again = job_id not in self._times
        if soon := self._delays.explain(job_id, again=again):
            return soon
        entry = self._queue.get(job_id)
        if entry is None:
            return "its turn has come"
        words, until = self._held
        why = words if self._loop.time() < until else self._room.blocked(entry)
        before = self._queue.before(entry)
        place = f"{before} of yours {'is' if before == 1 else 'are'} before it" if before else ""
        return "; ".join(filter(None, (why, place))) or "its turn is next"

    # -- starting ------------------------------------------------------------------------

    def _turn_of(self, entry: Entry) -> None:
        if entry.id in self._fresh:
            # It is looked at again as soon as it is on record.
            self._queue.add(entry)
            return
        job = self._journal.find(entry.id)
        if job is None or job.state is not State.PENDING:
            return
        if not job.request.asker.serial:
            self._start(entry, job, {})
        elif self._fronts:
            client = self._fronts[-1]
            self._asked[entry.id] = entry, client
            client.ask(job)
        else:
            # It asks to be told of turns as soon as it is there.
            self._queue.add(entry)

    def admit(self, call: requests.Admit) -> None:
        """The front has said whether a job may be started whose turn has come."""
        entry, _ = self._asked.pop(call.id, (None, None))
        if entry is None:
            # It was stopped meanwhile, say.
            return
        job = self._journal.find(entry.id)
        if job is None or job.state is not State.PENDING:
            return
        if call.refusal:
            self.give_up(LiveJob(job), Reason.REFUSED, call.refusal)
            return
        self._room.note(entry, call.quotas)
        if call.drained:
            self._hold(entry, call.drained)
            return
        self._start(entry, job, call.quotas)
        self.look_soon()

    def _hold(self, entry: Entry, words: str) -> None:
        """Nothing can be started for now."""
        self._held = words, self._loop.time() + LOOK_SECONDS
        self._queue.add(entry)
        self._tick()

    def _start(self, entry: Entry, job: Job, quotas: Mapping[Kind, Quota]) -> None:
        try:
            self._check_serving()
            if self._room.full(entry.queue):
                self._queue.add(entry)
                return
            self._quotas.admit(job.request, quotas)
        except QuotaReached:
            self._queue.add(entry)
            return
        except SupervisorError as error:
            self._hold(entry, str(error))
            return
        try:
            self._starts.begin_waiting(job, partial(self._undone, entry))
        except SupervisorError as error:
            self.give_up(LiveJob(job), Reason.CANNOT_START, str(error))

    def _undone(self, entry: Entry, reason: str) -> None:
        """Its start cannot be put on record: it waits on."""
        self._hold(entry, f"starts cannot be put on record ({reason}): is the disk full?")


def _entry(request: Request) -> Entry:
    waiting = request.waiting
    whose = request.owner, request.tenant
    return Entry(request.id, *whose, waiting.queue, waiting.priority, request.name)
