"""The supervisor's end of its socket to the keeper."""

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

from jobworker.supervisor.host.accounting import ExitUsage
from jobworker.supervisor.keeper import packets

# How long the keeper may hold what it was told to let go of: it is not woken up for each.
BELL_SECONDS = 0.1


class Kept(NamedTuple):
    """What the keeper has kept of a job, as in births.py; the descriptors are ours.

    `pid` is 0 from a keeper that did not make it, but forked what became it.
    """

    pid: int
    start: int
    descriptors: tuple[int, ...]


class KeeperLink:
    """Sends to the keeper, blocking while its socket is full; the keeper never blocks on us."""

    def __init__(self, line: packets.Line) -> None:
        self._line = line
        self._control = line.control
        # Tells this keeper, and so the jobs whose processes it has made, from others.
        self.identity = ""
        # It is of a release before births.py.
        self.old = False
        # What it can do beyond what every one can.
        self.can: frozenset[str] = frozenset()
        # Its file for output.limbo; -1 from a keeper that has none.
        self.limbo = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ringing = False

    def inherit(self) -> dict[str, Kept]:
        """What the keeper has of jobs, by ID.

        Waits for it; raises EOFError when the keeper has ended.
        """
        kept: dict[str, Kept] = {}
        while True:
            received = packets.receive(self._control)
            match received:
                case (("kept", str(key), int(pid), int(start)), descriptors):
                    kept[key] = Kept(pid, start, descriptors)
                case (("kept", str(key)), (launcher, stdout, stderr, pidfd)):
                    kept[key] = Kept(0, 0, (stdout, stderr, launcher, pidfd))
                case (("limbo",), (descriptor,)):
                    self.limbo = descriptor
                case (("can", *abilities), _):
                    self.can = frozenset(map(str, abilities))
                case (("keeper", int(_), str(identity)), _):
                    self.identity = identity
                    return kept
                case (("keeper", int(pid)), _):
                    self.identity, self.old = f"pid {pid}", True
                    return kept
                case None:
                    raise EOFError("the keeper has ended")

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        made: Callable[[str, int, int, int], None],
        refused: Callable[[str, int], None],
        exited: Callable[[int, int, int, ExitUsage], None],
        client: Callable[[int], None],
        stop: Callable[[], None],
        retire: Callable[[], None],
    ) -> None:
        """Call back for every packet from here on; end this process when the keeper ends.

        `made` takes (job ID, pid, start in clock ticks, pidfd), `refused` (job ID, errno),
        `exited` (serial, pid, wait status, usage), `client` the descriptor of a
        pipe's end.
        """
        self._loop = loop

        def readable() -> None:
            match packets.receive(self._control):
                case (("made", str(key), int(pid), int(start)), (pidfd,)):
                    made(key, pid, start, pidfd)
                case (("refused", str(key), int(number)), _):
                    refused(key, number)
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

    def drop(self, job_id: str) -> None:
        """The job needs them no longer; the keeper lets go of them within BELL_SECONDS."""
        self._line.send(("drop", job_id))
        if self._loop is not None and not self._ringing:
            self._ringing = True
            self._loop.call_later(BELL_SECONDS, self._ring)

    def shut(self, job_id: str, index: int) -> None:
        """Close that one of what is kept of the job, at once."""
        self._line.send(("shut", job_id, index), urgent=True)

    def _ring(self) -> None:
        self._ringing = False
        self._line.bell.send(b"!")

    def recorded(self, serial: int) -> None:
        """An exit report is on record, or concerns no job."""
        self._line.send(("recorded", serial))

    def tell(self, packet: packets.Packet, descriptors: tuple[int, ...]) -> None:
        """Send an order that the keeper is to follow at once."""
        self._line.send(packet, descriptors, urgent=True)
