"""A job's launch: from the order to the keeper to the news of its execution."""

import asyncio
import errno
import socket

from jobworker.supervisor.errors import CannotExecute, SupervisorError, words
from jobworker.supervisor.job import Request
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.program import REPORT, STEPS

_TOO_LONG = (
    "one argument or variable exceeds 128 KiB, or all together exceed what execve(2) takes "
    "on this host (a quarter of the stack limit): pass the rest in a file"
)
# Characters of a path in an error.
_SHOWN = 300


class Launch:
    """Owns the socket on which a failure to execute is told; it ends when the program executes.

    `overdue` is the timer that ends the patience with it.
    """

    def __init__(self, report: socket.socket, request: Request) -> None:
        self.report = report
        self.overdue: asyncio.TimerHandle | None = None
        self._request = request

    def failure(self) -> SupervisorError | None:
        """What was told; None if the program executes. Raises BlockingIOError while it is neither.

        The report is left where it is: should this process die now, the next reads it again.
        """
        try:
            data = self.report.recv(packets.MAX_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except ConnectionResetError:
            return None
        return self.in_words(data) if data else None

    def in_words(self, data: bytes) -> SupervisorError:
        """The error that a report tells."""
        number, step = REPORT.unpack(data)
        cwd, program = self._request.cwd[:_SHOWN], self._request.argv[0][:_SHOWN]
        return self.error(number, STEPS[step].format(cwd=cwd, program=program))

    def error(self, number: int, step: str) -> SupervisorError:
        """What could not be done, and why; what begins with "execute " is the program's affair."""
        message = f"cannot {step}: {words(number)}"
        if number == errno.E2BIG:
            message += f": {_TOO_LONG}"
        return CannotExecute(message, number, program=step.startswith("execute "))

    def close(self) -> None:
        """It has said all it will."""
        if self.overdue is not None:
            self.overdue.cancel()
        self.report.close()
