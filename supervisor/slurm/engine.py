"""The engine of a cluster: submits jobs to Slurm, and hears of them from the shared directory.

Nothing here waits for Slurm or for a file server: what may take a while is done in threads, and
what it brings is looked at in the event loop, which owns all state.
"""

import asyncio
import contextlib
import errno
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.engine import Exit, Reports
from jobworker.supervisor.errors import (
    CannotExecute,
    CannotPlace,
    SupervisorError,
    fitting,
    words,
)
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.job import (
    Job,
    Overflow,
    Reason,
    Request,
    State,
    StopMode,
    StopWay,
)
from jobworker.supervisor.slurm import controller, shared
from jobworker.supervisor.slurm.controller import ControllerAway, Seen
from jobworker.supervisor.slurm.placement import Placement, add_signal, comment_of, write_order
from jobworker.supervisor.slurm.slurm_job import Phase, SlurmJob, Whereabouts
from jobworker.supervisor.slurm.told import Ended, Glance, Started, has_started, look
from jobworker.supervisor.slurm.without_host import WithoutHost
from jobworker.supervisor.slurm.words import ENDED, OUT_OF_MEMORY, ending, waiting, without_record

log = logging.getLogger(__name__)

# How often the directories of running jobs are looked at, and Slurm's queue.
FILES_SECONDS = 0.05
QUEUE_SECONDS = 1.0
# Of jobs that wait in Slurm the directories of so many are looked at each time, in turns.
WAITING_AT_ONCE = 50
# For how long a file server may show less than a node has written, once Slurm says it is over.
SETTLE_SECONDS = 5.0
# After SIGKILL by the job's recorder, that is Slurm's turn; and how often it is asked.
CANCEL_SECONDS = 3.0
# A controller that died with a job that it had not put on its disk is asked so often again.
MOST_SUBMISSIONS = 3

_T = TypeVar("_T")


class SlurmEngine(WithoutHost):
    """Owns every SlurmJob, by ID. `prepare` of shared.py has been called."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: SupervisorConfig) -> None:
        self._loop = loop
        self._config = config
        self._shared = Path(config.engine.shared_dir)
        self._placement = Placement(config)
        self._reports: Reports
        self._jobs: dict[str, SlurmJob] = {}
        # The order of what is written down for a node is the order in which it was asked for.
        self._files = ThreadPoolExecutor(1, "files")
        self._commands = ThreadPoolExecutor(4, "slurm")
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False
        self._looks = 0
        # Why Slurm's controller does not answer; empty while it does, as far as is known.
        self._away = ""

    def report_to(self, reports: Reports) -> None:
        """As in Engine."""
        self._reports = reports
        if self._config.users is not None and self._config.users.maps():
            shared.let_users_pass(self._shared)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what was to be done in the cluster has failed", exc_info=error)

    async def _in_files(self, do: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._files, do)

    async def _in_slurm(self, do: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._commands, do)

    # -- starting ----------------------------------------------------------------------

    def place(self, request: Request) -> Request:
        """As in Engine."""
        placed = self._placement.place(request)
        if self._away:
            raise controller.away(self._away)
        return placed

    def prepare(self, job: Job) -> None:
        """As in Engine."""
        Whereabouts.new().note_in(job)

    def launch(self, job: Job) -> None:
        """As in Engine."""
        slurm = self._hold(job)
        self._spawn(self._begin(slurm))

    def _hold(self, job: Job) -> SlurmJob:
        self._jobs[job.id] = slurm = SlurmJob.of(job, self._shared)
        self._watch()
        return slurm

    async def _begin(self, slurm: SlurmJob) -> None:
        """Submit it, or find out that it is; `accepted` or `failed` comes of it."""
        job = slurm.job
        order = self._placement.order(job)
        account, readers = job.request.account, self._config.readers
        try:
            await self._in_files(partial(write_order, slurm.places, order, account, readers))
            number = await self._submit(slurm)
        except ControllerAway as error:
            self._away = str(error)
            await self._withdraw(slurm, controller.away(error))
        except OSError as error:
            why = f"the shared directory cannot keep the job's output: {words(error.errno or 0)}"
            await self._withdraw(slurm, CannotPlace(why))
        except SupervisorError as error:
            await self._withdraw(slurm, error)
        except Exception as error:
            log.exception("job %s could not be submitted", job.id)
            await self._withdraw(slurm, fitting(error))
        else:
            if slurm.given_up:
                self._cancel(number)
                return
            slurm.note_number(number)
            self._accept(slurm)

    async def _submit(self, slurm: SlurmJob) -> int:
        """The job's number, of which there is one however often this is called."""
        slurm.submissions += 1
        comment = comment_of(slurm.places)
        if slurm.submissions > 1 or slurm.job.state is not State.STARTING or slurm.gone_since:
            seen = await self._in_slurm(controller.queue)
            for one in seen.values():
                if one.comment == comment and one.state not in ENDED:
                    return one.number
        request = slurm.job.request
        submit = partial(
            controller.submit,
            self._placement.script(slurm.places),
            self._placement.options(request, comment),
            request.account,
        )
        return await self._in_slurm(submit)

    def _accept(self, slurm: SlurmJob) -> None:
        if slurm.phase is Phase.SUBMITTING:
            slurm.phase = Phase.QUEUED
            slurm.submitted_at = self._loop.time()
            slurm.gone_since = None
            if slurm.job.state is State.STARTING:
                self._reports.accepted(slurm.job)

    async def _withdraw(self, slurm: SlurmJob, error: SupervisorError) -> None:
        """It is not to begin any more; if it has, that goes on."""
        try:
            ours = await self._in_files(slurm.places.claim)
        except FileNotFoundError:
            # Nor can a node make it.
            ours = True
        except OSError as failure:
            log.warning("job %s: cannot be withdrawn: %s", slurm.job.id, failure)
            ours = False
        if not ours:
            slurm.given_up = False
            self._accept(slurm)
            return
        log.warning("job %s does not begin: %s", slurm.job.id, error)
        slurm.given_up = True
        slurm.phase = Phase.OVER
        self._cancel(slurm.where.number)
        if self._jobs.get(slurm.job.id) is slurm and slurm.job.state is State.STARTING:
            self._reports.failed(slurm.job, error)

    def _cancel(self, number: int) -> None:
        if number:
            self._spawn(self._cancel_soon(number))

    async def _cancel_soon(self, number: int) -> None:
        with contextlib.suppress(ControllerAway):
            await self._in_slurm(partial(controller.cancel, number))

    def give_up_after(self, job: Job, seconds: float) -> None:  # noqa: ARG002
        """As in Engine; what waits in a queue has nothing to end, so that it is at once."""
        slurm = self._jobs.get(job.id)
        if slurm is not None and not slurm.given_up and slurm.phase is not Phase.RUNNING:
            slurm.given_up = True
            why = f"{job.request.argv[0]} was stopped before it began to execute"
            self._spawn(self._withdraw(slurm, CannotExecute(why, errno.ECANCELED)))

    # -- going on with what another supervisor has left ------------------------------------

    def knows(self, job: Job) -> bool:
        """As in Engine: whatever has died meanwhile, the node will have told the end."""
        return bool(Whereabouts.of(job).nonce)

    def take_up(self, job: Job) -> None:
        """As in Engine."""
        slurm = self._hold(job)
        if job.state.without_main:
            slurm.phase = Phase.OVER
        elif job.state is not State.STARTING:
            slurm.phase = Phase.RUNNING
        elif slurm.where.number:
            self._loop.call_soon(self._accept, slurm)
        else:
            # Who was here before may have submitted it.
            slurm.submissions = 1
            self._spawn(self._begin(slurm))

    def clean_up(self, lost: Iterable[Job]) -> None:
        """As in Engine."""
        for job in lost:
            log.warning("job %s was another engine's: nothing is known of it", job.id)
        for stray in shared.strays(self._shared, set(self._jobs)):
            stray.unlink(missing_ok=True)

    # -- what is told, and by whom ---------------------------------------------------------------

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._spawn(self._watch_files())
            self._spawn(self._watch_queue())

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(FILES_SECONDS)
            self._looks += 1
            jobs = self._due()
            if not jobs:
                continue
            glances = await self._in_files(partial(_look_at, jobs))
            for slurm, glance in zip(jobs, glances, strict=True):
                # It may have been let go meanwhile.
                if glance is not None and self._jobs.get(slurm.job.id) is slurm:
                    self._seen_files(slurm, glance)

    def _due(self) -> list[SlurmJob]:
        """The jobs whose directories are to be looked at now."""
        running = [one for one in self._jobs.values() if one.phase is Phase.RUNNING]
        queued = [one for one in self._jobs.values() if one.phase is Phase.QUEUED]
        parts = 1 + len(queued) // WAITING_AT_ONCE
        return running + queued[self._looks % parts :: parts]

    def _seen_files(self, slurm: SlurmJob, glance: Glance) -> None:
        job = slurm.job
        if slurm.phase is Phase.QUEUED:
            self._seen_begin(slurm, glance.started, glance.ended)
        if slurm.phase is not Phase.RUNNING:
            return
        if glance.output_end != job.output_end:
            job.output_begin, job.output_end = glance.output_begin, glance.output_end
            self._reports.grew(job)
            self._look_for_overflow(slurm)
        if glance.ended is not None:
            self._seen_end(slurm, glance.ended)

    def _seen_begin(self, slurm: SlurmJob, started: Started | None, ended: Ended | None) -> None:
        if started is None and ended is None:
            return
        job = slurm.job
        if started is None and ended is not None and ended.error:
            error = f"cannot {ended.what}: {words(ended.error)}"
            slurm.phase = Phase.OVER
            program = ended.step.startswith("execute ")
            self._reports.failed(job, CannotExecute(error, ended.error, program=program))
            return
        slurm.phase = Phase.RUNNING
        job.detail = ""
        if started is not None:
            job.pid = started.pid
            slurm.note_number(started.slurm or slurm.where.number)
        if job.state is State.STARTING:
            self._reports.executed(job)

    def _look_for_overflow(self, slurm: SlurmJob) -> None:
        limit = slurm.job.request.output_limit
        full = limit.bytes and slurm.job.output_end > limit.bytes
        if full and limit.overflow is Overflow.STOP_JOB and not slurm.overflowed:
            slurm.overflowed = True
            self._reports.overflowed(slurm.job)

    def _seen_end(self, slurm: SlurmJob, ended: Ended) -> None:
        why = (Reason.NONE, "")
        if ended.out_of_memory:
            why = (Reason.OUT_OF_MEMORY, OUT_OF_MEMORY)
        elif self._asks_slurm(slurm, ended):
            # Slurm has said why by now, or is about to: the state is in its queue.
            seen_end = slurm.state in ENDED
            slurm.gone_since = slurm.gone_since or self._loop.time()
            if not seen_end and self._loop.time() < slurm.gone_since + SETTLE_SECONDS:
                return
            why = ending(slurm.state)
        self._over(slurm, Exit(ended.code, ended.usage, False, lambda: None, *why))

    def _asks_slurm(self, slurm: SlurmJob, ended: Ended) -> bool:
        """Whether Slurm may know better than the node why a program has ended."""
        killed = ended.code == -signal.SIGKILL and slurm.job.request.limits.memory > 0
        return not slurm.being_stopped and (killed or ended.termed > 0)

    def _over(self, slurm: SlurmJob, how: Exit) -> None:
        slurm.phase = Phase.OVER
        job = slurm.job
        job.output_drained = True
        tidy = partial(shared.tidy, slurm.places, whole=False)
        # What is written down for a node that is no more goes when all is on record.
        recorded = partial(self._files.submit, tidy)
        self._reports.exited(job, how._replace(recorded=lambda: _drop(recorded)))
        if slurm.being_stopped:
            self._end_stop(slurm)

    async def _watch_queue(self) -> None:
        while True:
            await asyncio.sleep(QUEUE_SECONDS)
            if not self._away and all(slurm.phase is Phase.OVER for slurm in self._jobs.values()):
                continue
            began = self._loop.time()
            try:
                queue = await self._in_slurm(controller.queue)
            except ControllerAway as error:
                if not self._away:
                    log.warning("Slurm's controller does not answer: %s", error)
                self._away = str(error)
                continue
            if self._away:
                log.info("Slurm's controller answers again")
                self._away = ""
            for slurm in list(self._jobs.values()):
                if slurm.phase in (Phase.QUEUED, Phase.RUNNING) and slurm.submitted_at < began:
                    self._seen_queue(slurm, queue.get(slurm.where.number))

    def _seen_queue(self, slurm: SlurmJob, seen: Seen | None) -> None:
        job = slurm.job
        slurm.state = seen.state if seen is not None else ""
        if seen is not None and seen.state not in ENDED:
            slurm.gone_since = None
            detail = waiting(seen) if seen.state == "PENDING" else ""
            if slurm.phase is Phase.QUEUED and detail != job.detail:
                job.detail = detail
                self._reports.grew(job)
            return
        if slurm.gone_since is None:
            slurm.gone_since = self._loop.time()
        elif self._loop.time() > slurm.gone_since + SETTLE_SECONDS:
            self._gone(slurm, seen)

    def _gone(self, slurm: SlurmJob, seen: Seen | None) -> None:
        """Slurm has it no more, and no node has told its end."""
        if slurm.phase is Phase.RUNNING:
            reason, detail = without_record(seen)
            how = Exit(-signal.SIGKILL, Usage(), False, lambda: None, reason, detail)
            self._over(slurm, how)
        elif seen is None and slurm.submissions < MOST_SUBMISSIONS:
            log.warning("job %s: Slurm has lost it: it is submitted again", slurm.job.id)
            slurm.phase = Phase.SUBMITTING
            self._spawn(self._begin(slurm))
        elif not slurm.given_up:
            slurm.given_up = True
            self._spawn(self._never_began(slurm, seen))

    async def _never_began(self, slurm: SlurmJob, seen: Seen | None) -> None:
        said = without_record(seen)
        text = f"Slurm has ended the job before its program began: {said.detail}"
        await self._withdraw(slurm, CannotExecute(text, errno.ECANCELED))
        if slurm.phase is not Phase.OVER:
            # A node has begun, and has died before it could say so.
            slurm.phase = Phase.RUNNING
            if slurm.job.state is State.STARTING:
                self._reports.executed(slurm.job)
            self._gone(slurm, seen)

    # -- signalling, stopping ------------------------------------------------------------------

    def signal(self, job: Job, number: int, *, to_all: bool) -> None:
        """As in Engine."""
        slurm = self._jobs.get(job.id)
        if slurm is None or slurm.phase is not Phase.RUNNING:
            raise ProcessLookupError
        self._write_down(slurm, f"{int(number)} {'all' if to_all else 'main'}")

    def _write_down(self, slurm: SlurmJob, line: str) -> None:
        self._spawn(self._write_down_soon(slurm, line))

    async def _write_down_soon(self, slurm: SlurmJob, line: str) -> None:
        try:
            await self._in_files(partial(add_signal, slurm.places, line))
        except OSError as error:
            log.warning("job %s: cannot tell its node: %s", slurm.job.id, error)

    def stop(self, job: Job, grace: float, way: StopWay) -> None:
        """As in Engine."""
        slurm = self._jobs.get(job.id)
        if slurm is None:
            # Of a job that has ended nothing is left: its recorder has seen to that.
            slurm = self._hold(job)
            slurm.phase = Phase.OVER
        if slurm.phase is Phase.OVER:
            self._loop.call_soon(self._reports.stopped, job)
            return
        way = way.or_else(job.request.stop)
        slurm.being_stopped = True
        kill_at = self._loop.time() + grace
        slurm.kill_at = kill_at if slurm.kill_at is None else min(slurm.kill_at, kill_at)
        if grace > 0:
            whom = "main" if way.mode is StopMode.MAIN else "all"
            self._write_down(slurm, f"{int(way.signal)} {whom} stop")
        if slurm.timer is not None:
            slurm.timer.cancel()
        slurm.timer = self._loop.call_at(slurm.kill_at, self._kill, slurm)

    def _kill(self, slurm: SlurmJob) -> None:
        if slurm.phase is not Phase.OVER:
            self._write_down(slurm, f"{int(signal.SIGKILL)} all")
            slurm.timer = self._loop.call_later(CANCEL_SECONDS, self._cancel_again, slurm)

    def _cancel_again(self, slurm: SlurmJob) -> None:
        """Its recorder does not do it, so Slurm is to; until the job is over."""
        if slurm.phase is not Phase.OVER:
            self._cancel(slurm.where.number)
            slurm.timer = self._loop.call_later(CANCEL_SECONDS, self._cancel_again, slurm)

    def _end_stop(self, slurm: SlurmJob) -> None:
        slurm.being_stopped = False
        if slurm.timer is not None:
            slurm.timer.cancel()
        self._loop.call_soon(self._reports.stopped, slurm.job)

    # -- output, usage, the place ------------------------------------------------------------------

    def usage(self, job: Job) -> Usage:
        """As in Engine: it is told at the end."""
        return job.usage

    def output_open(self, job: Job) -> bool:
        """As in Engine."""
        slurm = self._jobs.get(job.id)
        return slurm is not None and slurm.phase is not Phase.OVER

    def vacant(self, job: Job) -> bool | None:
        """As in Engine: its recorder ends what the program leaves, before it tells the end."""
        return not self.output_open(job)

    def forget(self, job: Job) -> None:
        """As in Engine."""
        slurm = self._jobs.pop(job.id, None)
        if slurm is None:
            return
        if slurm.timer is not None:
            slurm.timer.cancel()
        never_ran = job.state is State.STARTING and not job.attempts
        tidy = partial(shared.tidy, slurm.places, whole=never_ran)
        _drop(partial(self._files.submit, tidy))

    def close(self) -> None:
        """Let go of everything; what is in the cluster goes on."""
        for task in self._tasks:
            task.cancel()
        for executor in (self._files, self._commands):
            executor.shutdown(wait=False, cancel_futures=True)


def _drop(submit: Callable[[], object]) -> None:
    # After the end of the engine there is nobody to do it; the next one does.
    with contextlib.suppress(RuntimeError):
        submit()


def _look_at(jobs: list[SlurmJob]) -> list[Glance | None]:
    """What is in their directories; None where it is nothing yet."""
    return [
        look(slurm.places) if slurm.phase is Phase.RUNNING or has_started(slurm.places) else None
        for slurm in jobs
    ]
