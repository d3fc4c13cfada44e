"""The supervisor: what the keeper, the clients and the processes tell it, and what it does then."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.core.answers import Answers
from jobworker.supervisor.core.attendance import Attendance
from jobworker.supervisor.core.connections import Connections
from jobworker.supervisor.core.contact import Contact
from jobworker.supervisor.core.pauses import Pauses
from jobworker.supervisor.core.progress import Progress
from jobworker.supervisor.core.retention import Retention
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.errors import (
    Drained,
    ShuttingDown,
    StillRunning,
    SupervisorError,
)
from jobworker.supervisor.host.descriptors import Descriptors
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.schedule_messages import AddSchedule, ChangeSchedule, Schedules
from jobworker.supervisor.ipc.server import Client, Clients
from jobworker.supervisor.job import (
    AS_EVER,
    ONCE,
    Happening,
    OnDisconnect,
    Reason,
    Request,
    State,
    StopWay,
    after,
)
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.journal.start_keys import fingerprint, removed
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.quota_counts import quotas_over
from jobworker.supervisor.live.starts import Starts
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.waiting.health import Health
from jobworker.supervisor.waiting.names import Names
from jobworker.supervisor.waiting.pending import Pending
from jobworker.supervisor.waiting.restarts import Restarts
from jobworker.supervisor.waiting.schedules import Runs, Scheduler

log = logging.getLogger(__name__)

# In requests.Attend.
_TAKEN_LEAVE = 2


class Supervisor:
    """Puts the parts together. `finished` is called once when a shutdown is complete."""

    def __init__(
        self,
        config: SupervisorConfig,
        journal: Journal,
        engine: Engine,
        finished: Callable[[], None],
    ) -> None:
        self._config = config
        self._journal = journal
        self._loop = loop = asyncio.get_running_loop()
        self._finished = finished
        self._stopping = False
        self._output = Path(config.state_dir) / "output"
        self._output.mkdir(mode=0o750, exist_ok=True)
        if config.readers >= 0:
            # What is made in it is that group's, too (inode(7), S_ISGID).
            os.chown(self._output, -1, config.readers)
            self._output.chmod(0o2750)
        self.clients = Clients(loop, self._handle, self._client_gone)
        self.turn = Turn(
            loop,
            journal,
            self._tell,
            self.clients.tell_removed,
            self.clients.watching,
            free=self._make_room,
            stuck=self._not_recorded,
        )
        self._engine = engine
        self.jobs = LiveJobs(
            loop,
            engine,
            self.turn,
            self._finish_if_stopped,
            self._cleared,
        )
        self.starts = Starts(engine, self.jobs, self.turn, self._follows)
        self._quotas = quotas_over(self.jobs, journal, self.turn, engine, loop.time)
        self.pending = Pending(
            loop,
            config.queues,
            self.jobs,
            journal,
            self.turn,
            engine,
            self.starts,
            self._quotas,
            partial(self._check_serving, ""),
        )
        self.restarts = Restarts(
            engine, self.jobs, self.turn, self.pending, journal.clock.age_seconds, self._stop_inside
        )
        self.health = Health(loop, engine, self.jobs, ready=self._is_ready, ill=self._is_ill)
        self._names = Names(self.jobs, self.pending, self.turn)
        self._answers = Answers(self.jobs, journal, self.turn, self.pending.explain)
        self._contact = Contact(engine, self.jobs, self._answers)
        self.retention = Retention(loop, config, journal, self.turn, self.output_directory)
        self._pauses = Pauses(engine, self.turn)
        self.connections = Connections(loop, Path(config.state_dir), config.readers)
        engine.report_to(
            Progress(
                engine,
                self.jobs,
                self.starts,
                self._pauses,
                self.turn,
                started=self._started,
                overflowed=partial(self.stop, grace=None, why=Reason.OUTPUT_LIMIT),
                follows=self.restarts.follows,
                ended=self.pending.ended,
            )
        )
        self.scheduler = Scheduler(
            loop,
            journal.schedules,
            self.turn,
            Runs(
                self.jobs,
                self.pending,
                self._names,
                self.starts.check,
                partial(self._check_serving, ""),
                lambda job_id: self.stop(self._live_again(job_id), None),
                journal.newest,
            ),
        )
        self._attendance = Attendance(loop, self.jobs, config.attend_seconds, self._left_alone)
        self._descriptors = Descriptors()

    def output_directory(self, job_id: str) -> Path:
        """Where the job's segments are."""
        return self._output / job_id

    def _cleared(self, live: LiveJob) -> None:
        self.restarts.cleared(live)

    def _follows(self, live: LiveJob) -> bool:
        return self.restarts.follows(live)

    # -- requests ----------------------------------------------------------------

    def _handle(self, client: Client, seq: int, call: requests.Call) -> None:
        match call:
            case requests.Start():
                self._start(client, seq, call)
            case requests.MayStart():
                self._answer(
                    client, seq, lambda: client.say_whether(seq, self._why_not_start(call))
                )
            case requests.Turns():
                self.pending.turns(client)
                client.reply(seq)
            case requests.Admit():
                self.pending.admit(call)
                client.reply(seq)
            case requests.Connect() | requests.Porter():
                self.connections.begin(client, seq, *self._contact.way(call))
            case requests.Input() | requests.Resize():
                self._contact.give(client, seq, call)
            case requests.Attend():
                self._attend(client, seq, call)
            case AddSchedule() | ChangeSchedule() | Schedules():
                found = self.scheduler.handle(call)
                self._answer(client, seq, lambda: client.reply_schedules(seq, found()))
            case requests.List() | requests.Observe() | requests.Owners() | requests.StartOf():
                self._answer(client, seq, partial(self._answers.survey, client, seq, call))
            case _:
                self._handle_one(client, seq, call)

    def _handle_one(self, client: Client, seq: int, call: requests.AboutOne) -> None:
        match call:
            case requests.Stop(job_id, grace, way):
                self.stop(self._live_again(job_id), grace, way=way)
            case requests.Signal(job_id, number, to_all):
                self._contact.signal(job_id, number, to_all=to_all)
            case requests.Watch(job_id):
                self._answers.find(job_id)
                client.watched.add(job_id)
            case requests.Pause(job_id):
                answer = partial(self._answers.job, client, seq, job_id)
                self._pauses.pause(
                    self._contact.not_ended(job_id), partial(self._answer, client, seq, answer)
                )
                return
            case requests.Resume(job_id):
                self._pauses.resume(self._contact.not_ended(job_id))
            case requests.Remove(job_id):
                self._remove(job_id)
                self.turn.after_commit(partial(client.reply, seq))
                return
            case requests.Unwatch(job_id):
                client.watched.discard(job_id)
                client.reply(seq)
                return
            case requests.Get(job_id):
                self._measure(job_id)
        self._tell_of(client, seq, job_id)

    def _answer(
        self, client: Client, seq: int, answer: Callable[[], None], job_id: str = ""
    ) -> None:
        """Answer at the end of the turn, if need be that it cannot be done."""
        self.turn.answer(partial(client.attempt, seq, answer), job_id)

    def _tell_of(self, client: Client, seq: int, job_id: str) -> None:
        """Answer with a job as it is at the end of the turn."""
        self._answer(client, seq, partial(self._answers.job, client, seq, job_id), job_id)

    def _measure(self, job_id: str) -> None:
        self._answers.find(job_id)
        if (live := self.jobs.get(job_id)) is not None:
            live.job.usage = self._engine.usage(live.job)

    def _tell(self, live: LiveJob) -> None:
        self.clients.tell(live.job.id, live.job.state, partial(self._answers.news, live))

    def _make_room(self, job_ids: Collection[str]) -> bool:
        return self.retention.free(job_ids)

    def _not_recorded(self, lives: Collection[LiveJob]) -> None:
        """The disk is full, say: who waits for these jobs is told, and an end does not wait."""
        for live in lives:
            self.clients.tell_watchers(live.job.id, partial(self._answers.news, live))
        if self._stopping and all(live.over for live in self.jobs):
            self._finish()

    # -- starting, signalling, pausing, stopping --------------------------------------------

    def _start(self, client: Client, seq: int, call: requests.Start) -> None:
        request = _with_fingerprint(call.request)

        def outcome(result: LiveJob | SupervisorError) -> None:
            if isinstance(result, SupervisorError):
                self.turn.answer(partial(client.refuse, seq, result))
            else:
                self._tell_of(client, seq, result.job.id)

        if self.starts.pending(request):
            self.starts.join(request, outcome)
            return
        if submitted := self.pending.submitted(request):
            self._tell_of(client, seq, submitted)
            return
        if self.turn.withdraws(request.id):
            # The engine lets go of one start before it is told of another under that ID.
            self.turn.settle_all()
        known = self._journal.find_start(request)
        if known is not None and self.turn.removes(known.id):
            raise removed(request, known.id)
        if known is not None and not self.turn.withdraws(known.id):
            self._tell_of(client, seq, known.id)
            return
        self._names.check_free(request)
        with self._keeping_files(request, call.files):
            if request.waiting.queue and self._has_to_wait(request, call):
                self.pending.submit(request, call.quotas, outcome)
                self._tell_of(client, seq, request.id)
            else:
                self._check_serving(call.drained)
                self._quotas.admit(request, call.quotas)
                self.starts.begin(request, outcome)

    @contextlib.contextmanager
    def _keeping_files(self, request: Request, files: Sequence[bytes]) -> Iterator[None]:
        """Keep what comes with a start, unless the block finds that it cannot be."""
        if not files:
            yield
            return
        self._engine.keep_files(request, files)
        try:
            yield
        except BaseException:
            self._engine.drop_files(request)
            raise

    def _has_to_wait(self, request: Request, call: requests.Start | requests.MayStart) -> bool:
        """Raises what is no matter of waiting."""
        if self._stopping:
            self._check_serving("")
        return bool(self.pending.why_wait(request, call.quotas) or call.drained)

    def _why_not_start(self, call: requests.MayStart) -> SupervisorError | None:
        """What `_start` would refuse with now; None if it would start or find a job."""
        request = _with_fingerprint(call.request)
        try:
            known = self.starts.pending(request) or self._journal.find_start(request)
            if not known:
                self._names.check_free(request)
                if not (request.waiting.queue and self._has_to_wait(request, call)):
                    self._check_serving(call.drained)
                    self._quotas.check(request, call.quotas)
                self.starts.check(request)
        except SupervisorError as error:
            return error
        return None

    def _check_serving(self, drained: str) -> None:
        if drained:
            raise Drained(f"the server starts no new jobs: {drained}")
        if self._stopping:
            raise ShuttingDown("the service is stopping and starts no more jobs")
        self._descriptors.check(len(self.starts))

    def _started(self, live: LiveJob) -> None:
        if live.accepted:
            # What it waited for elsewhere is not of its time.
            clock = self._journal.clock
            self.turn.write(("clock", live.job.id), partial(clock.began, live.job.id))
            self.arm_timeout(live, lived=0.0)
        else:
            self.arm_timeout(live)
        self.health.watch(live)
        self._attendance.expect(live)
        if live.stop_after_start is not None:
            self.stop(live, *live.stop_after_start)

    def _is_ready(self, live: LiveJob) -> None:
        live.ready = True
        self.turn.tell(live)
        self.pending.ready(live)

    def _is_ill(self, live: LiveJob, why: str) -> None:
        live.job.detail = why
        self.stop(live, None, Reason.UNHEALTHY)

    def _attend(self, client: Client, seq: int, call: requests.Attend) -> None:
        self._answers.find(call.id)
        if call.gone:
            self._attendance.goes(client, call.id, call.who, leave=call.gone == _TAKEN_LEAVE)
        else:
            self._attendance.comes(client, call.id, call.who)
        client.reply(seq)

    def _client_gone(self, client: Client) -> None:
        self._attendance.lost(client)
        self.pending.client_gone(client)

    def _left_alone(self, live: LiveJob) -> None:
        log.info("job %s: nobody attends to it any more", live.job.id)
        if live.job.request.on_disconnect is OnDisconnect.STOP:
            self.stop(live, None)
            return
        with contextlib.suppress(ProcessLookupError):
            self._engine.signal(live.job, signal.SIGHUP, to_all=True)

    def _live_again(self, job_id: str) -> LiveJob:
        """The job to stop; one that has ended is looked at again for what it left behind."""
        live = self._live(job_id)
        if live is None:
            job = self._answers.find(job_id)
            live = LiveJob(job)
            self.jobs.add(live)
        return live

    def _live(self, job_id: str) -> LiveJob | None:
        """The job, if it has something left to do: not if that is to go on record alone."""
        live = self.jobs.get(job_id)
        if live is not None and live.job.state is State.ENDED:
            self.turn.settle_all()
            live = self.jobs.get(job_id)
        return live

    def arm_timeout(self, live: LiveJob, lived: float | None = None) -> None:
        """Have the job stopped when its time is over, if it has a timeout.

        It has `lived` for so many seconds, or since it was put on record.
        """
        timeout = live.job.request.limits.timeout
        if timeout:
            if lived is None:
                lived = self._journal.clock.age_seconds(live.job.id)
            self._loop.call_later(max(0.0, timeout - lived), self._timed_out, live)

    def _timed_out(self, live: LiveJob) -> None:
        if live.job.state.going_on and self.jobs.get(live.job.id) is live:
            self.stop(live, None, Reason.TIMED_OUT)

    def stop(
        self,
        live: LiveJob,
        grace: float | None,
        why: Reason = Reason.STOPPED,
        way: StopWay = AS_EVER,
    ) -> None:
        """End the job's tree, with `grace` seconds or the job's own, and so for the way.

        What runs within it is part of that, and ends for the same reason.
        """
        self._stop_inside(live, grace, why, way)
        seconds = live.job.request.grace if grace is None else grace
        if live.job.state is State.PENDING:
            self.pending.give_up(live, why)
            return
        if live.job.state is State.STARTING:
            live.stop_after_start = (seconds, why, way)
            self._engine.give_up_after(live.job, seconds)
            return
        if live.job.state is State.RESTARTING:
            # What it left behind is being ended already: no other attempt follows.
            live.job.reason, live.job.pid = why, 0
            live.job.state = after(live.job.state, Happening.STOP_ASKED)
            self.turn.update(live)
            self.pending.ended(live.job)
        elif live.job.state is not State.ENDED:
            # A stop that somebody asked for is the last of it, whatever it was being stopped for.
            last = why is Reason.STOPPED and live.job.request.restart != ONCE
            if live.job.state.going_on or last:
                live.job.reason = why
            live.job.state = after(live.job.state, Happening.STOP_ASKED)
            self.turn.update(live)
        live.being_stopped = True
        # A death after the signal must find on record why the job has ended.
        self.turn.after_attempt(partial(self._engine.stop, live.job, seconds, way))

    def _stop_inside(
        self,
        live: LiveJob,
        grace: float | None = None,
        why: Reason = Reason.STOPPED,
        way: StopWay = AS_EVER,
    ) -> None:
        """End what runs within a job: it ends for the same reason."""
        for inner in self.jobs.inside(live.job.id):
            self.stop(inner, grace, why, way)

    def _remove(self, job_id: str) -> None:
        job = self._answers.find(job_id)
        live = self.jobs.get(job_id)
        if job.state is State.PENDING or (live is not None and not live.over):
            raise StillRunning(f"job {job_id} has not ended, or its output is still open")
        self.retention.remove([job_id])

    # -- the end -----------------------------------------------------------------------

    def shut_down(self) -> None:
        """Start nothing more, stop every job with its grace, then call `finished`."""
        if self._stopping:
            return
        self._stopping = True
        self.scheduler.stop()
        graces = [live.job.request.grace for live in self.jobs]
        for live in self.jobs:
            if not live.job.request.restart.persist:
                self.stop(live, None)
            elif live.job.state is not State.RESTARTING:
                self.stop(live, None, Reason.LOST)
        self._loop.call_later(max([0.0, *graces]) + self._config.stop_seconds, self._finish)
        self._finish_if_stopped()

    def _finish(self) -> None:
        """End with jobs that could not be ended, or not be recorded as ended."""
        if self._stopping:
            log.error("ending with %d jobs whose end is not on record", len(self.jobs))
            self._stopping = False
            self._finished()

    def _finish_if_stopped(self) -> None:
        if self._stopping and not self.jobs:
            self._stopping = False
            self._loop.call_soon(self._finished)


def _with_fingerprint(request: Request) -> Request:
    """As it is to be on record, so that the same start can be told from another."""
    return replace(request, asked=fingerprint(request)) if request.request_id else request
