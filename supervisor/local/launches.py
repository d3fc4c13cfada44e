"""From a job on record to one whose program executes, or to the reason why it does not."""

import asyncio
import contextlib
import errno
from collections.abc import Callable

from jobworker.supervisor.errors import OUT_OF, CannotExecute, Exhausted, SupervisorError, words
from jobworker.supervisor.job import Job, State
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.local_job import LocalJob, Whereabouts
from jobworker.supervisor.local.main_process import MainProcess
from jobworker.supervisor.local.orders import Orders
from jobworker.supervisor.local.placement import Placement

# How soon a sandbox that was being made is looked at again.
_SANDBOX_SECONDS = 0.01


class Launches:
    """The launches in progress. Calls `executed` or `failed` once for each, unless it is ended.

    `born` is called as soon as there is a process, which is in the job's record then.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keeper: KeeperLink,
        placement: Placement,
        orders: Orders,
        *,
        start_seconds: float,
        born: Callable[[LocalJob], None],
        executed: Callable[[LocalJob], None],
        failed: Callable[[LocalJob, SupervisorError], None],
    ) -> None:
        self._loop = loop
        self._keeper = keeper
        self._placement = placement
        self._orders = orders
        self._start_seconds = start_seconds
        self._born = born
        self._executed = executed
        self._failed = failed

    def prepare(self, job: Job, other: LocalJob | None) -> None:
        """Note in the record where the job's process will be looked for.

        Below the cgroup of the `other` within which it runs: what holds for that, holds for it.
        """
        directory = self._placement.cgroup_of(job.id)
        if other is not None:
            directory = str(other.cgroup.directory / job.id) if other.cgroup is not None else ""
        Whereabouts(cgroup=directory, keeper=self._keeper.identity).note_in(job)

    def begin(self, local: LocalJob) -> None:
        """Ask the keeper for the job's process; it makes one, however often it is asked."""
        self._order(local, self._loop.time() + self._start_seconds)

    def _order(self, local: LocalJob, until: float) -> None:
        if local.job.state is not State.STARTING:
            # Given up, while it waited for the sandbox that it is to enter.
            return
        step = "prepare"
        try:
            if local.cgroup is not None:
                step = "make its cgroup"
                with contextlib.suppress(FileExistsError):
                    local.cgroup.directory.mkdir()
                step = "keep the job's limits"
                if local.other is None:
                    local.cgroup.limit(local.job.request.limits, self._placement.controllers)
            step = "enter the job" if local.other is not None else "prepare"
            self._orders.order(local)
        except BlockingIOError as error:
            if local.other is None or self._loop.time() > until:
                self._fail(local, _failure(step, error))
            else:
                self._loop.call_later(_SANDBOX_SECONDS, self._order, local, until)
            return
        except OSError as error:
            self._fail(local, _failure(step, error))
            return
        self._wait(local)

    def _wait(self, local: LocalJob) -> None:
        """Hear of the launch, but not for ever."""
        assert local.launch is not None  # noqa: S101 - it has just begun
        seconds = self._start_seconds
        why = f"did not begin to execute within {seconds:g} s: is its file system reachable?"
        local.launch.overdue = self._loop.call_later(
            seconds, self._overdue, local, why, errno.ETIMEDOUT
        )

    def made(self, local: LocalJob, pid: int, start: int, pidfd: int) -> None:
        """The keeper has made the process."""
        local.main, local.told = MainProcess(pid, pidfd, local.private, local.told), -1
        local.note_process(pid, start)
        self._born(local)
        self._listen(local)

    def refused(self, local: LocalJob, number: int) -> None:
        """The keeper could not make one."""
        if local.launch is not None and local.main is None:
            self._fail(local, _failure("make a process", OSError(number, "")))

    def resume(self, local: LocalJob, report: int) -> None:
        """Go on with a launch that another supervisor began, whose process there is."""
        self._orders.resumed(local, report)
        self._wait(local)
        self._listen(local)

    def _listen(self, local: LocalJob) -> None:
        assert local.launch is not None  # noqa: S101 - it is in progress
        self._loop.add_reader(local.launch.report.fileno(), self.settle, local)

    def settle(self, local: LocalJob) -> None:
        """The process has told its failure, or its socket has ended: then the program executes.

        Does nothing for a launch that has come to its end, and for one of which there
        is no news.
        """
        if local.launch is None or local.main is None:
            return
        try:
            failure = local.launch.failure()
        except BlockingIOError:
            return
        if failure is not None:
            self._fail(local, failure)
            return
        self.end(local)
        self._executed(local)

    def give_up_after(self, local: LocalJob, seconds: float) -> None:
        """Wait no longer than that for the program to execute: the job is to be stopped."""
        why = "was stopped before it began to execute"
        self._loop.call_later(seconds, self._overdue, local, why, errno.ECANCELED)

    def _overdue(self, local: LocalJob, why: str, number: int) -> None:
        if local.launch is not None and local.job.state is State.STARTING:
            program = local.job.request.argv[0]
            self._fail(local, CannotExecute(f"{program} {why}", number))

    def _fail(self, local: LocalJob, error: SupervisorError) -> None:
        local.kill_main()
        self.end(local)
        self._failed(local, error)

    def end(self, local: LocalJob) -> None:
        """Hear no more of a launch."""
        if local.launch is not None:
            self._loop.remove_reader(local.launch.report.fileno())
            local.end_launch()


def _failure(step: str, error: OSError) -> SupervisorError:
    number = error.errno or 0
    if step == "keep the job's limits":
        step += f": writing {error.filename}"
    elif number in OUT_OF:
        return Exhausted(
            f"the host has no room for another process ({words(number)}): try again later"
        )
    return CannotExecute(f"cannot {step}: {words(number)}", number)
