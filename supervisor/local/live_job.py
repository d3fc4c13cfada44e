"""A job that has something left to do: its process, its pipes, its launcher."""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jobworker.supervisor.host import accounting, inside
from jobworker.supervisor.host.cgroup import Cgroup
from jobworker.supervisor.host.isolation import Profile, program_of, told_by
from jobworker.supervisor.host.tree import JobRoot
from jobworker.supervisor.job import Job, State, StopWay
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.launcher import Spec
from jobworker.supervisor.local.pool import Launcher
from jobworker.supervisor.output import segments
from jobworker.supervisor.output.recorder import Recorder


@dataclass
class LiveJob:
    """What the supervisor holds for a job: `pipes` maps read ends to streams.

    `launcher` is the socket on which a failure to execute is told, until the
    program executes. `pidfd` is -1 when the main process has been reaped.
    `gone` says that no process of the job is left, `being_stopped` that its
    tree is being ended, `disk_full` that output could not be written before.
    `stop_after_start` is the grace and the way of a stop that came too early.
    `told` is where inside.py finds how a private job's program ended, or -1.
    """

    job: Job
    recorder: Recorder
    pidfd: int = -1
    launcher: socket.socket | None = None
    pipes: dict[int, int] = field(default_factory=dict)
    gone: bool = False
    being_stopped: bool = False
    disk_full: bool = False
    stop_after_start: tuple[float, StopWay] | None = None
    told: int = -1

    @property
    def root(self) -> JobRoot:
        """How the job's processes are told where it has no cgroup."""
        return JobRoot(self.job.id, self.job.pid, self.job.pid_start)

    @property
    def cgroup(self) -> Cgroup | None:
        """The job's cgroup, if it has one."""
        return Cgroup(Path(self.job.cgroup)) if self.job.cgroup else None

    def descriptors(self) -> tuple[int, ...]:
        """What the keeper holds copies of; `from_kept` is the inverse."""
        assert self.launcher is not None  # noqa: S101 - only ever asked before the launch
        return (self.launcher.fileno(), *self.pipes, self.pidfd)

    @classmethod
    def from_kept(cls, job: Job, recorder: Recorder, kept: tuple[int, ...]) -> "LiveJob":
        """The job again, from what the keeper kept of it."""
        launcher, stdout, stderr, pidfd = kept
        return cls(
            job,
            recorder,
            pidfd,
            socket.socket(fileno=launcher),
            {stdout: segments.STDOUT, stderr: segments.STDERR},
            told=told_by(job.pid) if job.request.profile is Profile.PRIVATE else -1,
        )

    @classmethod
    def bound(cls, job: Job, recorder: Recorder, launcher: Launcher) -> "LiveJob":
        """A new job, and the launcher that is to become it."""
        pipes = {launcher.stdout: segments.STDOUT, launcher.stderr: segments.STDERR}
        return cls(job, recorder, launcher.pidfd, launcher.control, pipes)

    def order(self, spec: Spec) -> None:
        """Tell the launcher what to execute. Harmless when it knows already, or is dead."""
        assert self.launcher is not None  # noqa: S101 - only asked until the launch is settled
        files = [spec.to_memfd()]
        kept = []
        if spec.sandbox and (teller := inside.new_teller()) is not None:
            if self.told < 0:
                self.told = inside.new_told()
            files.append(teller)
            kept.append(self.told)
        # A launcher that was killed before this tells so by its exit report.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            packets.send(self.launcher, ("launch",), (*files, *kept))
        packets.close_all(tuple(files))

    def signal_main(self, number: int) -> None:
        """Signal the job's program. Raises ProcessLookupError when it has ended."""
        if self.job.request.profile is Profile.PRIVATE:
            program = program_of(self.job.pid)
            if program is not None:
                signal_process(program, number, lambda: program_of(self.job.pid) == program)
                return
        signal.pidfd_send_signal(self.pidfd, number)

    def main_exited(self) -> bool:
        """Whether the main process has ended, reaped or not (pidfd_open(2): it polls readable)."""
        if self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def kill_main(self) -> None:
        """SIGKILL the main process, if it is still there."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def measure(self) -> None:
        """Bring the job's usage up to date, as far as that can still be told."""
        used = accounting.UNKNOWN
        if self.cgroup is not None:
            used = accounting.of_cgroup(self.cgroup.directory)
        if self.job.state is not State.ENDED:
            used = used.else_from(accounting.of_process(self.job.pid))
        self.job.usage = used.else_from(self.job.usage)

    def oom_killed(self) -> bool:
        """Whether the kernel has killed processes of it for lack of memory."""
        return self.cgroup is not None and accounting.oom_kills(self.cgroup.directory) > 0

    def exit_code(self, status: int) -> int:
        """What the main process's wait status says of the job's program; -N for signal N.

        Bubblewrap tells as a shell does (128+N) by what its program was killed, so
        what the program inside has told goes before that.
        """
        if self.told >= 0 and (told := inside.status(self.told)) is not None:
            return os.waitstatus_to_exitcode(told)
        code = os.waitstatus_to_exitcode(status)
        isolated = self.job.request.profile is Profile.PRIVATE
        return 128 - code if isolated and 128 < code <= 128 + signal.SIGRTMAX else code

    def launch_failure(self) -> tuple[int, str] | None:
        """What the launcher says it failed with (errno, step); None if the program executes.

        Raises BlockingIOError while it is neither. The message is left where it
        is: should this supervisor die now, the next one reads it again.
        """
        assert self.launcher is not None  # noqa: S101 - only asked until the launch is settled
        try:
            data = self.launcher.recv(packets.MAX_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except ConnectionResetError:
            return None
        if not data:
            return None
        _, number, step = json.loads(data)
        return int(number), str(step)

    def close_launcher(self) -> None:
        """The launcher has said all it will."""
        if self.launcher is not None:
            self.launcher.close()
            self.launcher = None

    def close(self) -> None:
        """Let go of everything; what is on record stays."""
        self.close_launcher()
        packets.close_all((*self.pipes, *((self.pidfd,) if self.pidfd >= 0 else ())))
        self.pipes.clear()
        self.pidfd = -1
        if self.told >= 0:
            os.close(self.told)
            self.told = -1
        self.recorder.close()


def signal_process(pid: int, number: int, still_it: Callable[[], bool]) -> None:
    """Signal a process by its PID if, once that cannot change hands any more, it is `still_it`.

    Raises ProcessLookupError when it is not there.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if still_it():
            signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
