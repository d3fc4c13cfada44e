"""The supervisor: what the keeper, the clients and the processes tell it, and what it does then."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import time_ns

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.core.answers import Answers
from jobworker.supervisor.core.live_jobs import LiveJobs
from jobworker.supervisor.core.quota_counts import quotas_over
from jobworker.supervisor.core.retention import Retention
from jobworker.supervisor.core.starts import Starts
from jobworker.supervisor.core.turn import Turn
from jobworker.supervisor.errors import (
    AlreadyEnded,
    Drained,
    ShuttingDown,
    StillRunning,
    SupervisorError,
)
from jobworker.supervisor.host.accounting import ExitUsage
from jobworker.supervisor.host.cgroup import JobCgroups
from jobworker.supervisor.host.descriptors import Descriptors
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.messages import job_message
from jobworker.supervisor.ipc.server import Client, Clients
from jobworker.supervisor.job import (
    AS_EVER,
    Happening,
    Overflow,
    Reason,
    Request,
    State,
    StopWay,
    after,
    end_reason,
)
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.journal.start_keys import fingerprint, removed
from jobworker.supervisor.local.capture import Capture
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.live_job import LiveJob
from jobworker.supervisor.local.placement import Placement
from jobworker.supervisor.local.pool import LauncherPool
from jobworker.supervisor.local.stops import Stops, signal_tree
from jobworker.supervisor.output.pump import Pump
from jobworker.supervisor.output.recorder import Keep, Recorder

log = logging.getLogger(__name__)

# How long the news of a main process's exit may take after the end of its output.
EXIT_NEWS_SECONDS = 0.1


class Supervisor:
    """Puts the parts together. `finished` is called once when a shutdown is complete."""

    def __init__(
        self,
        config: SupervisorConfig,
        journal: Journal,
        keeper: KeeperLink,
        cgroups: JobCgroups | None,
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
        self.clients = Clients(loop, self._handle)
        self.turn = Turn(
            loop, journal, self._tell, self.clients.tell_removed, self.clients.watching
        )
        self._pump = Pump(loop)
        self.jobs = LiveJobs(loop, keeper, self._pump, self.turn, self._finish_if_stopped)
        self._answers = Answers(self.jobs, journal)
        self.stops = Stops(loop, self._tree_gone)
        self.capture = Capture(
            loop,
            self._pump,
            grew=self.turn.tell,
            complete=self._pipes_ended,
            overflowed=self._overflowed,
        )
        self._keeper = keeper
        self.retention = Retention(loop, config, journal, self.turn, self.output_directory)
        self.starts = Starts(
            loop,
            config,
            keeper,
            self.jobs,
            self.turn,
            placement=Placement(config, cgroups),
            make_pool=partial(
                LauncherPool,
                loop,
                keeper.fork,
                cgroups.directory if cgroups else None,
                config.spare_launchers,
                config.pipe_bytes,
            ),
            recorder=partial(self.recorder, new=True),
            started=self._started,
        )

        self._descriptors = Descriptors()
        self._quotas = quotas_over(self.jobs, self.starts, journal, loop.time)

    def recorder(self, request: Request, *, new: bool = False) -> Recorder:
        """A recorder for the job's output that goes on where the record ends."""
        limit = request.output_limit
        rotate = limit.bytes if limit.overflow is Overflow.ROTATE else 0
        keep = Keep(self._config.segment_bytes, rotate)
        return Recorder(self.output_directory(request.id), keep, new=new)

    def output_directory(self, job_id: str) -> Path:
        """Where the job's segments are."""
        return self._output / job_id

    # -- requests ----------------------------------------------------------------

    def _handle(self, client: Client, seq: int, call: requests.Call) -> None:
        match call:
            case requests.Start():
                self._start(client, seq, call)
                return
            case requests.Stop(job_id, grace, way):
                self.stop(self._live_again(job_id), grace, way=way)
            case requests.Signal(job_id, number, to_all):
                self._signal(job_id, number, to_all=to_all)
            case requests.Watch(job_id):
                self._answers.find(job_id)
                client.watched.add(job_id)
            case requests.Remove(job_id):
                self._remove(job_id)
                self._answer(client, seq, partial(client.reply, seq))
                return
            case requests.Unwatch(job_id):
                client.watched.discard(job_id)
                self._answer(client, seq, partial(client.reply, seq))
                return
            case requests.Get(job_id):
                self._measure(job_id)
            case requests.List() | requests.Observe() | requests.Owners():
                self._answer(client, seq, partial(self._answers.survey, client, seq, call))
                return
            case requests.MayStart():
                self._answer(
                    client, seq, lambda: client.say_whether(seq, self._why_not_start(call))
                )
                return
        self._answer(client, seq, partial(self._answers.job, client, seq, job_id))

    def _answer(self, client: Client, seq: int, answer: Callable[[], None]) -> None:
        """Answer at the end of the turn, if need be that it cannot be done."""
        self.turn.answer(partial(client.attempt, seq, answer))

    def _measure(self, job_id: str) -> None:
        self._answers.find(job_id)
        if (live := self.jobs.get(job_id)) is not None:
            live.measure()

    def _tell(self, live: LiveJob) -> None:
        self.clients.tell(
            live.job.id, live.job.state, lambda: job_message(live.job, gone=live.gone)
        )

    # -- starting, signalling, stopping --------------------------------------------

    def _start(self, client: Client, seq: int, call: requests.Start) -> None:
        request = _with_fingerprint(call.request)

        def outcome(result: LiveJob | SupervisorError) -> None:
            if isinstance(result, SupervisorError):
                self.turn.answer(partial(client.refuse, seq, result))
            else:
                self._answer(client, seq, partial(self._answers.job, client, seq, result.job.id))

        if self.starts.pending(request):
            self.starts.join(request, outcome)
            return
        known = self._journal.find_start(request)
        if known is not None and self.turn.removes(known.id):
            raise removed(request, known.id)
        if known is not None and not self.turn.withdraws(known.id):
            self._answer(client, seq, partial(self._answers.job, client, seq, known.id))
        else:
            self._check_serving(call.drained)
            self._quotas.admit(request, call.quotas)
            self.starts.begin(request, outcome)

    def _why_not_start(self, call: requests.MayStart) -> SupervisorError | None:
        """What `_start` would refuse with now; None if it would start or find a job."""
        request = _with_fingerprint(call.request)
        try:
            known = self.starts.pending(request) or self._journal.find_start(request)
            if not known:
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
        self.capture.listen(live)
        self.arm_timeout(live)
        if live.stop_after_start is not None:
            grace, way = live.stop_after_start
            self.stop(live, grace, way=way)

    def _signal(self, job_id: str, number: int, *, to_all: bool) -> None:
        job = self._answers.find(job_id)
        live = self.jobs.get(job_id)
        try:
            if to_all:
                signal_tree(job, number)
            elif live is None or live.job.state is State.ENDED:
                raise ProcessLookupError
            else:
                live.signal_main(number)
        except ProcessLookupError:
            raise AlreadyEnded(f"job {job_id} has ended: there is nothing to signal") from None

    def _live_again(self, job_id: str) -> LiveJob:
        """The job to stop; one that has ended is looked at again for what it left behind."""
        live = self.jobs.get(job_id)
        if live is None:
            job = self._answers.find(job_id)
            live = LiveJob(job, self.recorder(job.request))
            self.jobs.add(live)
        return live

    def arm_timeout(self, live: LiveJob) -> None:
        """Have the job stopped when its time is over, if it has a timeout."""
        timeout = live.job.request.limits.timeout
        if timeout:
            lived = (time_ns() - live.job.created_ns) / 1e9
            self._loop.call_later(max(0.0, timeout - lived), self._timed_out, live)

    def _timed_out(self, live: LiveJob) -> None:
        if live.job.state is State.RUNNING and self.jobs.get(live.job.id) is live:
            self.stop(live, None, Reason.TIMED_OUT)

    def stop(
        self,
        live: LiveJob,
        grace: float | None,
        why: Reason = Reason.STOPPED,
        way: StopWay = AS_EVER,
    ) -> None:
        """End the job's tree, with `grace` seconds or the job's own, and so for the way."""
        seconds = live.job.request.grace if grace is None else grace
        if live.job.state is State.STARTING:
            live.stop_after_start = (seconds, way)
            self.starts.give_up_after(live, seconds)
            return
        if live.job.state is not State.ENDED:
            if live.job.state is State.RUNNING:
                live.job.reason = why
            live.job.state = after(live.job.state, Happening.STOP_ASKED)
            self.turn.update(live)
        self.stops.begin(live, seconds, way)

    def _remove(self, job_id: str) -> None:
        self._answers.find(job_id)
        if self.jobs.get(job_id) is not None:
            raise StillRunning(f"job {job_id} has not ended, or its output is still open")
        self.retention.remove([job_id])

    def _tree_gone(self, live: LiveJob) -> None:
        self.turn.tell(live)
        self.jobs.retire(live)

    # -- what processes do -----------------------------------------------------------

    def exited(self, serial: int, pid: int, status: int, used: ExitUsage) -> None:
        """The keeper has reaped a process: a job's main one, a launcher, or an orphan."""
        live = self.jobs.reaped(pid)
        if live is None:
            self._keeper.recorded(serial)
        elif live.job.state is State.STARTING:
            # The two news race; the launcher's socket knows whether this was the
            # program. The start is answered first: its record is durable already.
            self.starts.settle(live)
            self._loop.call_soon(self._main_exited, live, serial, status, used)
        else:
            self._main_exited(live, serial, status, used)

    def _main_exited(self, live: LiveJob, serial: int, status: int, used: ExitUsage) -> None:
        if live.job.state in (State.RUNNING, State.STOPPING):
            live.measure()
            live.job.usage = live.job.usage.ended().else_from(used.usage())
            self._record_exit(live, live.exit_code(status))
        self.turn.after_commit(partial(self._keeper.recorded, serial))

    def _record_exit(self, live: LiveJob, exitcode: int) -> None:
        job = live.job
        job.signal = max(0, -exitcode)
        job.exit_status = max(0, exitcode)
        job.reason = end_reason(job.state, job.reason, job.signal, oom=live.oom_killed())
        job.state = after(job.state, Happening.EXIT)
        job.ended_ns = time_ns()
        job.output_complete = job.output_complete or not live.pipes
        self.capture.main_ended(live)
        self.turn.update(live)
        self.jobs.retire(live)

    def _pipes_ended(self, live: LiveJob) -> None:
        """Nobody can write output any more; most often as the main process has just ended.

        Then its exit is about to be told, and who follows the output to its end
        expects to find the job ended.
        """
        if live.job.state is State.ENDED:
            self._complete(live)
        else:
            self._loop.call_later(EXIT_NEWS_SECONDS, self._complete_unless_exited, live)

    def _complete_unless_exited(self, live: LiveJob) -> None:
        if live.job.state is State.ENDED:
            return
        if live.main_exited():
            self._loop.call_later(EXIT_NEWS_SECONDS, self._complete_unless_exited, live)
        else:
            self._complete(live)

    def _complete(self, live: LiveJob) -> None:
        live.job.output_complete = True
        self.turn.update(live)
        self.jobs.retire(live)

    def _overflowed(self, live: LiveJob) -> None:
        if live.job.state is State.RUNNING:
            self.stop(live, None, Reason.OUTPUT_LIMIT)

    # -- the end -----------------------------------------------------------------------

    def shut_down(self) -> None:
        """Start nothing more, stop every job with its grace, then call `finished`."""
        if self._stopping:
            return
        self._stopping = True
        self.starts.fail_queued(ShuttingDown("the service is stopping and starts no more jobs"))
        self.starts.pool.close()
        graces = [live.job.request.grace for live in self.jobs]
        for live in self.jobs:
            self.stop(live, None)
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
