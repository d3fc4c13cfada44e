"""What must survive supervisor and front: listening sockets and exit statuses."""

import resource
import socket

from jobworker.supervisor.keeper import packets

ExitReport = packets.Packet

# The front faces the network: what it has the keeper hold is bounded.
MAX_LISTENING = 8


class Listening:
    """The sockets on which the front listens: clients that connect while there is none wait."""

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, ...] = ()

    def keep(self, descriptors: tuple[int, ...]) -> bool:
        """Take these over in place of those before; False for what is not listening sockets.

        They are closed then, and those before stay.
        """
        if len(descriptors) > MAX_LISTENING or not all(map(_listens, descriptors)):
            packets.close_all(descriptors)
            return False
        self.close()
        self._sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
        return True

    def close(self) -> None:
        """Listen no longer: who connects from here on is refused."""
        for listening in self._sockets:
            listening.close()
        self._sockets = ()

    def sockets(self) -> tuple[socket.socket, ...]:
        """Those that are kept; they stay ours."""
        return self._sockets


def _listens(descriptor: int) -> bool:
    """Whether it is a socket that accepts connections (socket(7), SO_ACCEPTCONN)."""
    try:
        with socket.socket(fileno=descriptor) as sock:
            try:
                return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            finally:
                sock.detach()
    except OSError:
        return False


class ExitLedger:
    """Exit reports in order of arrival, each kept until the supervisor has it on record.

    A report is ("exit", serial, pid, wait status, and of wait4(2)'s usage: user
    seconds, system seconds, peak resident KiB, blocks read, blocks written). A
    supervisor is sent each once; the next one is sent all that were not
    acknowledged.
    """

    def __init__(self) -> None:
        self._reports: dict[int, ExitReport] = {}
        self._unsent: dict[int, None] = {}
        self._serial = 0

    def add(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """Note that a process has been reaped."""
        self._serial += 1
        used = (usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
        blocks = (usage.ru_inblock, usage.ru_oublock)
        self._reports[self._serial] = ("exit", self._serial, pid, status, *used, *blocks)
        self._unsent[self._serial] = None

    def next_unsent(self) -> ExitReport | None:
        """The oldest report this supervisor has not been sent."""
        serial = next(iter(self._unsent), None)
        return None if serial is None else self._reports[serial]

    def sent(self, report: ExitReport) -> None:
        """This report is on its way."""
        self._unsent.pop(int(report[1]), None)

    def acknowledge(self, serial: int) -> None:
        """The supervisor has it on record (or needs none)."""
        self._reports.pop(serial, None)
        self._unsent.pop(serial, None)

    def resend_all(self) -> None:
        """There is a new supervisor: it has been sent nothing yet."""
        self._unsent = dict.fromkeys(self._reports)
