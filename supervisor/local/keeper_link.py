"""The supervisor's end of its socket to the keeper."""

import asyncio
import os
from collections.abc import Callable

from jobworker.supervisor.host.accounting import ExitUsage
from jobworker.supervisor.keeper import packets


class KeeperLink:
    """Sends to the keeper, blocking while its socket is full; the keeper never blocks on us."""

    def __init__(self, line: packets.Line) -> None:
        self._line = line
        self._control = line.control

    def inherit(self) -> dict[str, tuple[int, ...]]:
        """What the supervisor before left with the keeper: descriptors by job ID.

        Waits for it; raises EOFError when the keeper has ended.
        """
        kept: dict[str, tuple[int, ...]] = {}
        while True:
            received = packets.receive(self._control)
            match received:
                case (("kept", str(key)), descriptors):
                    kept[key] = descriptors
                case (("keeper", int(_)), _):
                    return kept
                case None:
                    raise EOFError("the keeper has ended")

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        exited: Callable[[int, int, int, ExitUsage], None],
        client: Callable[[int], None],
        stop: Callable[[], None],
        retire: Callable[[], None],
    ) -> None:
        """Call back for every packet from here on; end this process when the keeper ends.

        `exited` takes (serial, pid, wait status, usage), `client` the descriptor of a
        pipe's end.
        """

        def readable() -> None:
            match packets.receive(self._control):
                case (("exit", int(serial), int(pid), int(status), *used), _):
                    exited(serial, pid, status, ExitUsage.of_report(used))
                case (("client",), (descriptor,)):
                    client(descriptor)
                case (("stop",), _):
                    stop()
                case (("retire",), _):
                    retire()
                case None:
                    # Without the keeper nobody reaps and nobody keeps: a new one
                    # will tell the truth from the journal.
                    os._exit(1)

        loop.add_reader(self._control.fileno(), readable)

    def up(self) -> None:
        """Say that this supervisor is at work."""
        self._line.send(("up", "supervisor", ""), urgent=True)

    def keep(self, job_id: str, descriptors: tuple[int, ...]) -> None:
        """Leave copies of a job's descriptors with the keeper."""
        self._line.send(("keep", job_id), descriptors)

    def drop(self, job_id: str) -> None:
        """The job needs them no longer."""
        self._line.send(("drop", job_id))

    def recorded(self, serial: int) -> None:
        """An exit report is on record, or concerns no job."""
        self._line.send(("recorded", serial))

    def fork(self, descriptors: tuple[int, int, int], cgroup: str) -> None:
        """Ask for a launcher with these: its end of a packet socket, and of the job's pipes."""
        self._line.send(("fork", cgroup), descriptors, urgent=True)
