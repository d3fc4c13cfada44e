"""A job's main process: the program, or the sandbox around it."""

import contextlib
import os
import select
import signal
from dataclasses import dataclass

from jobworker.supervisor.host import inside
from jobworker.supervisor.host.inside import program_of, told_by
from jobworker.supervisor.host.tree import signal_process


@dataclass
class MainProcess:
    """Owns `pidfd`, and `told` (-1 if there is none).

    That is where inside.py finds how the program of a `private` job ended.
    """

    pid: int
    pidfd: int
    private: bool
    told: int = -1

    def signal(self, number: int) -> None:
        """Signal the job's program. Raises ProcessLookupError when it has ended."""
        if self.private:
            program = program_of(self.pid)
            if program is not None:
                signal_process(program, number, lambda: program_of(self.pid) == program)
                return
        signal.pidfd_send_signal(self.pidfd, number)

    def exited(self) -> bool:
        """Whether it has ended, reaped or not (pidfd_open(2): it polls readable)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        """SIGKILL it, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def look_for_told(self) -> None:
        """Find what the program inside tells its end by, where the keeper has not kept it."""
        if self.private and self.told < 0:
            self.told = told_by(self.pid)

    def exit_code(self, status: int) -> int:
        """What its wait status says of the job's program; -N for signal N.

        Bubblewrap tells as a shell does (128+N) by what its program was killed, so
        what the program inside has told goes before that.
        """
        if self.told >= 0 and (told := inside.status(self.told)) is not None:
            return os.waitstatus_to_exitcode(told)
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if self.private and 128 < code <= 128 + signal.SIGRTMAX else code

    def close(self) -> None:
        """Let go of it."""
        for descriptor in (self.pidfd, self.told):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self.told = -1
