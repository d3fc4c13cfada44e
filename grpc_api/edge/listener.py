"""A listening socket that outlives a shortage of descriptors."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable

from jobworker.grpc_api.errors import ListenError

_log = logging.getLogger(__name__)

_BACKLOG = 512
# Connections taken in one turn of the loop, so that a storm of them leaves
# room for the bytes of those that are there.
_ACCEPTS_PER_TURN = 64
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_SECONDS = 0.5
# A host that vanished without a word is noticed within a minute, and what lies between
# sees that the connection is in use; tcp(7).
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class Listener:
    """Accepts connections until it is closed; runs in the event loop it was made in."""

    def __init__(
        self, listening: socket.socket, accepted: Callable[[socket.socket, str], None]
    ) -> None:
        self._socket = listening
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._read()

    @property
    def address(self) -> tuple[str, int]:
        """The host and port it is bound to."""
        name = self._socket.getsockname()
        return str(name[0]), int(name[1])

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Accept no more; the backlog is reset, unless another process has the socket, too."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._wait_for_room(error)
                    return
                # accept(2): errors of the network that belong to the one
                # connection that would have been accepted.
                continue
            _set_up(connection)
            self._accepted(connection, printable_address(address))

    def _wait_for_room(self, error: OSError) -> None:
        # The socket stays readable, so going on at once would spin.
        _log.error(
            "cannot accept connections on %s: %s; trying again every %s s; "
            "raise the limit of open files or lower the limits of connections",
            printable_address(self._socket.getsockname()),
            error.strerror,
            _PAUSE_SECONDS,
        )
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._read)


def _set_up(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def listen(host: str, port: int, kept: Iterable[socket.socket] = ()) -> socket.socket:
    """Return a socket listening on an address, IPv4 or IPv6, or on a name's first one.

    `::` takes IPv4 as well. One of `kept` that listens there already is taken
    in place of a new one: who has connected to it meanwhile waits in its backlog.

    Raises:
        ListenError: The name is unknown, or the address in use or not this host's.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        for listening in kept:
            if listening.family == family and _is_bound_to(listening, address[:2]):
                return listening.dup()
        listening = socket.create_server(
            address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=address[0] == "::"
        )
    except OSError as error:
        # create_server appends the address to the system's words.
        reason = str(error.strerror).partition(" (while ")[0]
        raise ListenError(f"cannot listen on {host}:{port}: {reason}") from error
    listening.setblocking(False)
    return listening


def _is_bound_to(listening: socket.socket, address: tuple[object, object]) -> bool:
    host, port = listening.getsockname()[:2]
    return address in ((host, port), (host, 0))


def printable_address(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """A socket's address as host:port, an IPv6 host in brackets."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
