"""What is done to every process of a job at once, in its cgroup or one by one."""

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jobworker.supervisor.host import tree
from jobworker.supervisor.host.cgroup import Cgroup


@dataclass(frozen=True)
class WholeTree:
    """All processes of a job: those in its cgroup, or where it has none, those with its signs.

    The process `spared` (0 for none) is signalled by nothing but `kill`.
    """

    cgroup: Cgroup | None
    root: tree.JobRoot
    spared: int = 0

    def signal(self, number: int) -> None:
        """Send a signal to each. Raises ProcessLookupError when there is none."""
        if self.cgroup is not None:
            found = [pid for pid in self.cgroup.pids() if pid != self.spared]
            self._signal_those(self.cgroup, found, number)
        else:
            members = self._members()
            found = [one.pid for one in members]
            tree.send(members, number)
        if not found:
            raise ProcessLookupError(f"nothing is left of job {self.root.job_id}")

    def _members(self) -> list[tree.Process]:
        """Those with its signs, but for what is spared."""
        return [one for one in tree.members(tree.snapshot(), self.root) if one.pid != self.spared]

    def hold(self) -> bool:
        """Have each stand still that does not yet; whether none moves. Raises OSError.

        Who is told so by a signal may have made another meanwhile: do it until none moves.
        """
        if self.cgroup is not None and self.cgroup.freeze(frozen=True):
            return self.cgroup.frozen()
        moving = [one for one in self._members() if not one.still]
        tree.send(moving, signal.SIGSTOP)
        return not moving

    def release(self) -> None:
        """Let each go on. Raises OSError."""
        if self.cgroup is None or not self.cgroup.freeze(frozen=False):
            tree.send(self._members(), signal.SIGCONT)

    def kill(self, processes: Sequence[tree.Process]) -> None:
        """SIGKILL each; `processes` is a snapshot, for where there is no cgroup."""
        if self.cgroup is None:
            tree.send(tree.members(processes, self.root), signal.SIGKILL)
        elif not self.cgroup.kill():
            self._signal_those(self.cgroup, self.cgroup.pids(), signal.SIGKILL)

    def any_left(self, processes: Sequence[tree.Process]) -> bool:
        """Whether anything is left of it; `processes` as for `kill`. Raises OSError."""
        if self.cgroup is not None:
            return self.cgroup.populated()
        return bool(tree.members(processes, self.root))

    @staticmethod
    def _signal_those(cgroup: Cgroup, pids: Sequence[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # Between reading the PID and opening it, it may have changed hands.
                tree.signal_process(pid, number, partial(_holds, cgroup, pid))


def _holds(cgroup: Cgroup, pid: int) -> bool:
    return pid in cgroup.pids()
