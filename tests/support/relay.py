"""A TCP relay between a client and a server, whose connections a test breaks."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PIECE = 16 * 1024
# What a relay with a rate lets through at once after a silence, in seconds of that rate.
_BURST_SECONDS = 0.01


class Relay:
    """Passes bytes both ways between its own port and `target`.

    With `cut_every`, a connection is broken off once the server has sent that
    many bytes over it; with `hold_after`, no more than that many pass until
    `release`. With `rate`, it passes so many bytes a second from the server, as
    a slow network would. The relay runs in threads that end with `close`.
    """

    def __init__(
        self,
        target: tuple[str, int],
        cut_every: int | None = None,
        hold_after: int | None = None,
        rate: float | None = None,
    ) -> None:
        self._target = target
        self._rate = rate
        # When all that passed so far has had its time on the network.
        self._due = 0.0
        self._cut_every = cut_every
        self._hold_after = hold_after
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = self._listen(0)
        self.cuts = 0
        # Connections taken so far, and bytes that the server sent over them.
        self.taken = 0
        self.passed = 0

    @property
    def port(self) -> int:
        """The relay's own port, on 127.0.0.1."""
        return self._port

    @property
    def address(self) -> str:
        """HOST:PORT for the client, by a name that is in the server's certificate."""
        return f"localhost:{self._port}"

    def sever(self) -> None:
        """Break every connection and refuse new ones, until `restore`."""
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._break_all()

    def restore(self) -> None:
        """Take connections again, at the same address."""
        self._listener = self._listen(self._port)

    def hold(self) -> None:
        """Let nothing more of the server's pass until `release`, as when the path is dead."""
        self._hold_after = 0

    def release(self) -> None:
        """Let pass what was held."""
        self._released.set()

    def close(self) -> None:
        """Break everything and wait for the threads."""
        self.sever()
        self.release()
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        self._port: int = listener.getsockname()[1]
        self._run(self._accept, listener)
        return listener

    def _run(self, function: Callable[..., None], *sockets: socket.socket) -> None:
        thread = threading.Thread(target=function, args=sockets, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.taken += 1
            server = socket.create_connection(self._target)
            if self._rate is not None:
                # A network holds little; what waits does so at the server.
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
            with self._lock:
                self._open |= {client, server}
            self._run(self._pass_requests, client, server)
            self._run(self._pass_replies, server, client)

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        # The other direction, or the test, may break the connection at any time.
        with suppress(OSError):
            while piece := client.recv(PIECE):
                server.sendall(piece)
        self._break({client, server})

    def _pass_replies(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while piece := server.recv(PIECE):
                if self._hold_after is not None and passed + len(piece) > self._hold_after:
                    self._released.wait()
                client.sendall(piece)
                passed += len(piece)
                self.passed += len(piece)
                self._hold_to_rate(len(piece))
                if self._cut_every is not None and passed >= self._cut_every:
                    self.cuts += 1
                    break
        self._break({client, server})

    def _hold_to_rate(self, count: int) -> None:
        """Return when so many bytes have had their time on the network, which all share."""
        if self._rate is None:
            return
        with self._lock:
            self._due = max(self._due, time.monotonic() - _BURST_SECONDS) + count / self._rate
            due = self._due
        time.sleep(max(0.0, due - time.monotonic()))

    def _break_all(self) -> None:
        with self._lock:
            everything = set(self._open)
        self._break(everything)

    def _break(self, sockets: set[socket.socket]) -> None:
        with self._lock:
            sockets &= self._open
            self._open -= sockets
        for end in sockets:
            # Its peer may have been faster.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def relay_to(
    target: tuple[str, int],
    cut_every: int | None = None,
    hold_after: int | None = None,
    rate: float | None = None,
) -> Iterator[Relay]:
    """Give a Relay to `target`, and close it afterwards."""
    relay = Relay(target, cut_every, hold_after, rate)
    try:
        yield relay
    finally:
        relay.close()
