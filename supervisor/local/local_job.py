"""A job of this host: what the engine holds for it, and what it has on record of it."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jobworker.supervisor.host import accounting
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.host.cgroup import Cgroup
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.tree import JobRoot
from jobworker.supervisor.host.whole_tree import WholeTree
from jobworker.supervisor.job import Job
from jobworker.supervisor.local.intake import Intake
from jobworker.supervisor.local.launch import Launch
from jobworker.supervisor.local.main_process import MainProcess
from jobworker.supervisor.local.output_pipes import OutputPipes
from jobworker.supervisor.local.terminal import Screen


class Whereabouts(msgspec.Struct, frozen=True, omit_defaults=True):
    """By what a job's processes are found: this engine's record of a job.

    `pid` and `start` (clock ticks since boot) name the main process; `cgroup` is
    its directory or empty; `keeper` the identity of the one that was asked to
    make it: empty where its row was written by a release that did not ask.
    """

    pid: int = 0
    start: int = 0
    cgroup: str = ""
    keeper: str = ""

    @classmethod
    def of(cls, job: Job) -> "Whereabouts":
        """What is on record of the job."""
        return msgspec.json.decode(job.engine_record or "{}", type=cls)

    def note_in(self, job: Job) -> None:
        """Make it what is on record."""
        job.engine_record = msgspec.json.encode(self).decode()
        job.pid = self.pid

    def root(self, job: Job) -> JobRoot:
        """How the job's processes are told where it has no cgroup."""
        return JobRoot(job.id, self.pid, self.start)

    @property
    def directory(self) -> Cgroup | None:
        """The job's cgroup, if it has one."""
        return Cgroup(Path(self.cgroup)) if self.cgroup else None


def tree_of(job: Job) -> WholeTree:
    """All processes of a job, as they are found by what is on record of it."""
    where = Whereabouts.of(job)
    # Bubblewrap would end, and with it what the job's end is told by.
    spared = where.pid if job.request.profile is Profile.PRIVATE else 0
    return WholeTree(where.directory, where.root(job), spared)


@dataclass
class LocalJob:
    """The launch while it lasts, the main process until it is forgotten, and the output.

    `intake` is there as long as it takes input, `screen` while it has a terminal.
    """

    job: Job
    where: Whereabouts
    output: OutputPipes
    launch: Launch | None = None
    main: MainProcess | None = None
    # Where the program in a sandbox tells its end, until that is the main process's.
    told: int = -1
    intake: Intake | None = None
    screen: Screen | None = None
    # Its tree may stand still for a pause.
    held: bool = False
    # The one within which it runs.
    other: "LocalJob | None" = None

    @property
    def root(self) -> JobRoot:
        """How its processes are told where it has no cgroup."""
        return self.where.root(self.job)

    @property
    def cgroup(self) -> Cgroup | None:
        """Its cgroup, if it has one."""
        return self.where.directory

    @property
    def private(self) -> bool:
        """Whether its main process is a sandbox around its program."""
        return self.job.request.profile is Profile.PRIVATE

    @property
    def tree(self) -> WholeTree:
        """All of its processes."""
        return tree_of(self.job)

    def release(self) -> None:
        """Let its tree go on, which may stand still. Raises OSError."""
        self.tree.release()
        self.held = False

    def note_process(self, pid: int, start: int) -> None:
        """Its main process is this one; put it into the engine's record."""
        self.where = Whereabouts(pid, start, self.where.cgroup, self.where.keeper)
        self.where.note_in(self.job)

    def main_lives(self) -> bool:
        """Whether its main process has not ended yet, as far as can be seen."""
        if self.main is None or self.job.state.without_main:
            return False
        return not self.main.exited()

    def kill_main(self) -> None:
        """SIGKILL the main process, if there is one."""
        if self.main is not None:
            self.main.kill()

    def usage(self, controllers: Collection[str]) -> Usage:
        """What it has used by now, as far as that can be told; the controllers are its cgroup's."""
        used = accounting.UNKNOWN
        if self.cgroup is not None:
            used = accounting.of_cgroup(self.cgroup.directory, controllers)
        if not self.job.state.without_main and self.where.pid:
            used = used.else_from(accounting.of_process(self.where.pid))
        return used.else_from(self.job.usage)

    def close(self) -> None:
        """Let go of everything; what is on record stays."""
        self.end_launch()
        if self.main is not None:
            self.main.close()
            self.main = None
        if self.told >= 0:
            os.close(self.told)
            self.told = -1
        self.end_input(ended=False)
        if self.screen is not None:
            self.screen.close()
        self.output.close()

    def end_input(self, *, ended: bool) -> None:
        """It takes no more input, and who waits is told; what is left goes if it has `ended`."""
        if self.intake is not None:
            self.intake.close(ended=ended)
            self.intake = None

    def end_launch(self) -> None:
        """The launch has come to its end."""
        if self.launch is not None:
            self.launch.close()
            self.launch = None
