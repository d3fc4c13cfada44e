"""The engine of this host: its keeper makes the processes, its pipes carry the output."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.engine import Exit, Reports
from jobworker.supervisor.errors import AlreadyEnded, CannotPlace, NotRunning, SupervisorError
from jobworker.supervisor.host import accounting
from jobworker.supervisor.host.accounting import ExitUsage, Usage
from jobworker.supervisor.host.cgroup import Cgroup, JobCgroups
from jobworker.supervisor.host.disk_space import FreeSpace
from jobworker.supervisor.host.job_sockets import Owner
from jobworker.supervisor.host.ports import Ports
from jobworker.supervisor.job import InputPiece, Job, Overflow, Received, Request, State, StopWay
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.local.capture import Capture
from jobworker.supervisor.local.keeper_link import KeeperLink, Kept
from jobworker.supervisor.local.launches import Launches
from jobworker.supervisor.local.local_job import LocalJob, Whereabouts, tree_of
from jobworker.supervisor.local.main_process import MainProcess
from jobworker.supervisor.local.old_keeper import OldOrders
from jobworker.supervisor.local.orders import Births, Orders
from jobworker.supervisor.local.output_pipes import OutputPipes
from jobworker.supervisor.local.pauses import Pauses
from jobworker.supervisor.local.placement import Placement
from jobworker.supervisor.local.stops import Stops
from jobworker.supervisor.local.streams import Streams, more_kept
from jobworker.supervisor.local.survivors import end_survivors
from jobworker.supervisor.output.limbo import Limbo
from jobworker.supervisor.output.pump import Pump
from jobworker.supervisor.output.recorder import Keep, Recorder
from jobworker.supervisor.porter.places import Places
from jobworker.supervisor.porter.porters import Porters
from jobworker.supervisor.porter.uploads import Uploads

log = logging.getLogger(__name__)

# How long the news of a main process's exit may take after the end of its output.
EXIT_NEWS_SECONDS = 0.1
# How soon a cgroup that was not empty is tried again.
LEFTOVER_SECONDS = 0.2


class LocalEngine:
    """Owns every LocalJob, by ID and by the PID of a main process that is not reaped.

    `kept` is what the keeper handed over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: SupervisorConfig,
        keeper: KeeperLink,
        kept: dict[str, Kept],
        cgroups: JobCgroups | None,
    ) -> None:
        self._loop = loop
        self._config = config
        self._keeper = keeper
        self._kept = kept
        self._cgroups = cgroups
        self._output = Path(config.state_dir) / "output"
        self._reports: Reports
        # Of starts that failed, and whose processes were still ending when last looked at.
        self._leftover: list[Cgroup] = []
        self._jobs: dict[str, LocalJob] = {}
        self._by_pid: dict[int, LocalJob] = {}
        self._placement = Placement(config, cgroups)
        self._pump = Pump(loop)
        space = FreeSpace(self._output, config.min_free)
        self._streams = Streams(loop, keeper, self._pump, space)
        self._stops = Stops(loop, lambda local: self._reports.stopped(local.job))
        self._pauses = Pauses(loop, lambda local: self._reports.paused(local.job))
        self._ports = Ports()
        self._porters = Porters(Places(config))
        self._uploads = Uploads(loop, self._porters, self._output, space)
        self._capture = Capture(
            loop,
            self._pump,
            space,
            Limbo.left_by(keeper.limbo),
            grew=lambda local: self._reports.grew(local.job),
            complete=self._pipes_ended,
            overflowed=lambda local: self._reports.overflowed(local.job),
        )
        self._launches = Launches(
            loop,
            keeper,
            self._placement,
            self._new_orders(),
            start_seconds=config.start_seconds,
            born=self._born,
            executed=self._executed,
            failed=self._failed,
        )

    def _new_orders(self) -> Orders:
        if not self._keeper.old:
            return Births(
                self._keeper,
                self._placement,
                self._config.pipe_bytes,
                self._streams.open,
                self._output,
            )
        return OldOrders(
            self._loop,
            self._keeper,
            self._placement,
            self._config.pipe_bytes,
            made=self.made,
            refused=self.refused,
        )

    def report_to(self, reports: Reports) -> None:
        """As in Engine."""
        self._reports = reports

    # -- starting ----------------------------------------------------------------------

    def place(self, request: Request) -> Request:
        """As in Engine."""
        if request.takes_input and "input" not in self._keeper.can:
            raise CannotPlace(
                "this service was upgraded under running jobs, and its keeper, which is older, "
                "cannot give a job input: that takes a restart of the service"
            )
        if not request.inside:
            return self._placement.place(request)
        other = self._jobs.get(request.inside)
        if other is None or not other.main_lives():
            raise AlreadyEnded(f"job {request.inside} has ended: nothing starts within it")
        if other.job.state is not State.RUNNING:
            state = other.job.state.name.lower()
            raise NotRunning(f"job {request.inside} is {state}: nothing starts within it")
        return self._placement.place_inside(request, other.job.request)

    def prepare(self, job: Job) -> None:
        """As in Engine."""
        if not os.access(self._output, os.W_OK | os.X_OK):
            raise CannotPlace(
                "this host cannot keep the job's output: the service's output directory is "
                "missing or not writable; tell its administrator"
            )
        self._launches.prepare(job, self._jobs.get(job.request.inside))

    def launch(self, job: Job) -> None:
        """As in Engine."""
        local = self._hold(job, new=not job.attempts)
        if not job.request.uploads:
            self._launches.begin(local)
            return
        then = partial(self._launches.begin, local)
        self._uploads.put(job, then, partial(self._failed, local))

    def keep_files(self, request: Request, files: Sequence[bytes]) -> None:
        """As in Engine."""
        self._uploads.keep(request, files)

    def drop_files(self, request: Request) -> None:
        """As in Engine."""
        self._uploads.drop(request)

    def give_up_after(self, job: Job, seconds: float) -> None:
        """As in Engine."""
        if (local := self._jobs.get(job.id)) is not None:
            self._launches.give_up_after(local, seconds)

    def _hold(self, job: Job, *, new: bool = False) -> LocalJob:
        """A job as on record, with a recorder that goes on where its output ends; it is held."""
        limit = job.request.output_limit
        rotate = limit.bytes if limit.overflow is Overflow.ROTATE else 0
        keep = Keep(self._config.segment_bytes, rotate)
        output = OutputPipes(Recorder(self._output / job.id, keep, new=new))
        self._jobs[job.id] = local = LocalJob(job, Whereabouts.of(job), output)
        local.other = self._jobs.get(job.request.inside)
        return local

    def _born(self, local: LocalJob) -> None:
        self._by_pid[local.where.pid] = local
        self._reports.noted(local.job)

    def _executed(self, local: LocalJob) -> None:
        self._uploads.drop(local.job.request)
        self._reports.executed(local.job)
        self._streams.listen(local)
        self._capture.listen(local)

    def _failed(self, local: LocalJob, error: SupervisorError) -> None:
        self._reports.failed(local.job, error)

    # -- going on with what another supervisor has left ------------------------------------

    def knows(self, job: Job) -> bool:
        """As in Engine."""
        return job.id in self._kept or self._was_never_made(job)

    def _was_never_made(self, job: Job) -> bool:
        """Whether this keeper would know of the job's process, and does not."""
        asked = Whereabouts.of(job).keeper
        return job.state is State.STARTING and bool(asked) and asked == self._keeper.identity

    def take_up(self, job: Job) -> None:
        """As in Engine."""
        kept = self._kept.pop(job.id, None)
        if kept is None:
            self.launch(job)
            return
        stdout, stderr, report, pidfd, *more = kept.descriptors
        local = self._hold(job)
        if kept.pid:
            local.note_process(kept.pid, kept.start)
        count = more_kept(job.request)
        local.main = MainProcess(local.where.pid, pidfd, local.private, *more[count:])
        local.main.look_for_told()
        self._streams.open(local, stdout, stderr, tuple(more[:count]))
        job.output_begin, job.output_end = local.output.recorder.begin, local.output.recorder.end
        # Who was here before may have died before it let go of what it was stopping.
        local.held = job.state is State.STOPPING
        if not job.state.without_main:
            self._by_pid[local.where.pid] = local
        if job.state is State.STARTING:
            self._launches.resume(local, report)
        else:
            os.close(report)
            self._streams.listen(local)
            self._capture.listen(local)

    def clean_up(self, lost: Iterable[Job]) -> None:
        """As in Engine."""
        for job_id, kept in self._kept.items():
            packets.close_all(kept.descriptors)
            self._keeper.drop(job_id)
        self._kept.clear()
        end_survivors(lost)
        in_use = {local.where.cgroup for local in self._jobs.values()}
        # What runs within a job has its own below that one's.
        in_use |= {os.path.dirname(cgroup) for cgroup in in_use}  # noqa: PTH120 - texts
        for cgroup in self._cgroups.jobs() if self._cgroups is not None else ():
            if str(cgroup.directory) not in in_use:
                self._remove(cgroup)

    # -- what the keeper tells ---------------------------------------------------------------

    def made(self, job_id: str, pid: int, start: int, pidfd: int) -> None:
        """The keeper has made a job's process."""
        local = self._jobs.get(job_id)
        if local is None or local.launch is None or local.main is not None:
            # Its launch was given up meanwhile.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            return
        self._launches.made(local, pid, start, pidfd)

    def refused(self, job_id: str, number: int) -> None:
        """The keeper could not make a job's process."""
        local = self._jobs.get(job_id)
        if local is not None:
            self._launches.refused(local, number)

    def exited(self, serial: int, pid: int, status: int, used: ExitUsage) -> None:
        """The keeper has reaped a process: a job's main one, or an orphan."""
        local = self._by_pid.pop(pid, None)
        if local is None:
            self._keeper.recorded(serial)
        elif local.launch is not None:
            # The two news race; the socket of the launch knows whether this was the
            # program. The start is answered first: its record is durable already.
            self._launches.settle(local)
            self._loop.call_soon(self._main_exited, local, serial, status, used)
        else:
            self._main_exited(local, serial, status, used)

    def _main_exited(self, local: LocalJob, serial: int, status: int, used: ExitUsage) -> None:
        recorded = partial(self._keeper.recorded, serial)
        if local.main is None or local.job.state is State.STARTING or local.job.state.without_main:
            # Its start has failed, and it will not be on record.
            recorded()
            return
        usage = self.usage(local.job).ended().else_from(used.usage())
        cgroup = local.cgroup if "memory" in self._placement.controllers else None
        oom = cgroup is not None and accounting.oom_kills(cgroup.directory) > 0
        try:
            self._pauses.end(local)
        except OSError as error:
            log.warning("job %s: what it left stands still: %s", local.job.id, error)
        self._reports.exited(local.job, Exit(local.main.exit_code(status), usage, oom, recorded))
        self._streams.main_ended(local)
        self._capture.main_ended(local)

    # -- signalling, pausing, stopping -------------------------------------------------------

    def signal(self, job: Job, number: int, *, to_all: bool) -> None:
        """As in Engine."""
        local = self._jobs.get(job.id)
        if to_all:
            tree_of(job).signal(number)
        elif local is None or local.main is None or job.state.without_main:
            raise ProcessLookupError
        else:
            local.main.signal(number)

    def stop(self, job: Job, grace: float, way: StopWay) -> None:
        """As in Engine."""
        self._stops.begin(self._jobs.get(job.id) or self._hold(job), grace, way)

    def check_can_pause(self) -> None:
        """As in Engine: any can."""

    def pause(self, job: Job) -> None:
        """As in Engine."""
        if (local := self._jobs.get(job.id)) is not None:
            self._pauses.begin(local)

    def resume(self, job: Job) -> None:
        """As in Engine."""
        if (local := self._jobs.get(job.id)) is not None:
            self._pauses.end(local)

    # -- input ------------------------------------------------------------------------------------

    def give(
        self, job: Job, piece: InputPiece, answer: Callable[[Received | SupervisorError], None]
    ) -> None:
        """As in Engine."""
        local = self._jobs.get(job.id)
        if local is None or local.intake is None:
            raise LookupError
        local.intake.take(piece, answer)

    def stored_input(self, job: Job) -> int:
        """As in Engine."""
        local = self._jobs.get(job.id)
        kept = local.intake.stored_bytes if local and local.intake else 0
        return kept + self._uploads.kept_bytes(job.request)

    def resize(self, job: Job, rows: int, columns: int) -> None:
        """As in Engine."""
        local = self._jobs.get(job.id)
        if local is None or local.screen is None:
            raise LookupError
        local.screen.resize(rows, columns)

    async def connect(self, job: Job, port: int) -> socket.socket:
        """As in Engine."""
        account = job.request.account
        owner = Owner(tree_of(job), account.uid if account else None)
        return await self._ports.connect(owner, port)

    async def porter(self, job: Job, *, put: bool) -> socket.socket:
        """As in Engine."""
        local = self._jobs.get(job.id) or self._jobs.get(job.request.inside)
        while local is not None and local.other is not None:
            local = local.other

        def main() -> int:
            lives = local is not None and local.main is not None and local.main_lives()
            return local.where.pid if lives and local is not None else 0

        return await self._porters.begin(job, main, put=put)

    # -- output, usage, the place ------------------------------------------------------------------

    def _pipes_ended(self, local: LocalJob) -> None:
        """Nobody can write output any more; most often as the main process has just ended.

        Then its exit is about to be told, and who follows the output to its end
        expects to find the job ended.
        """
        if local.job.state.without_main:
            self._reports.complete(local.job)
        else:
            self._loop.call_later(EXIT_NEWS_SECONDS, self._complete_unless_exited, local)

    def _complete_unless_exited(self, local: LocalJob) -> None:
        if local.job.state.without_main:
            return
        if local.main is not None and local.main.exited():
            self._loop.call_later(EXIT_NEWS_SECONDS, self._complete_unless_exited, local)
        else:
            self._reports.complete(local.job)

    def output_open(self, job: Job) -> bool:
        """As in Engine."""
        local = self._jobs.get(job.id)
        return local is not None and bool(local.output.pipes)

    def usage(self, job: Job) -> Usage:
        """As in Engine."""
        local = self._jobs.get(job.id)
        if local is None:
            return job.usage
        # Only the cgroup that it is below has those.
        return local.usage(() if job.request.inside else self._placement.controllers)

    def vacant(self, job: Job) -> bool | None:
        """As in Engine."""
        cgroup = self._cgroup(job)
        return None if cgroup is None else not cgroup.populated()

    def clear(self, job: Job) -> bool:
        """As in Engine."""
        cgroup = self._cgroup(job)
        return cgroup is None or cgroup.remove()

    def _cgroup(self, job: Job) -> Cgroup | None:
        local = self._jobs.get(job.id)
        return local.cgroup if local is not None else Whereabouts.of(job).directory

    def forget(self, job: Job) -> None:
        """As in Engine."""
        self._uploads.forget(job)
        local = self._jobs.pop(job.id, None)
        if local is None:
            return
        self._streams.forget(local)
        for pipe in local.output.pipes:
            self._pump.remove(pipe)
        self._launches.end(local)
        if self._by_pid.get(local.where.pid) is local:
            del self._by_pid[local.where.pid]
        local.close()
        self._keeper.drop(job.id)
        if job.state is State.STARTING and local.cgroup is not None:
            self._remove(local.cgroup)

    def _remove(self, cgroup: Cgroup) -> None:
        """Remove it now, or as soon as those in it have ended."""
        self._leftover.append(cgroup)
        if len(self._leftover) == 1:
            self._remove_leftover()

    def _remove_leftover(self) -> None:
        self._leftover = [cgroup for cgroup in self._leftover if not cgroup.remove()]
        if self._leftover:
            self._loop.call_later(LEFTOVER_SECONDS, self._remove_leftover)
