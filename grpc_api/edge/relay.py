"""Carries the bytes of one connection between a TLS client and gRPC's unix socket.

Both directions are bounded: what cannot be written stops what is read, so a
connection holds at most the two transports' high-water marks and one read of
each side.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

from jobworker.grpc_api.edge.frames import AnyBytes, ClientFrames
from jobworker.grpc_api.edge.session import TlsSession
from jobworker.grpc_api.errors import Http2Abuse


class Relay:
    """One connection's two ends.

    A client that ends its half, or breaks off, ends gRPC's input; gRPC then
    ends the connection. `input_ended` and `ended` tell of the two; after
    `ended` the client's transport is the caller's again.
    """

    def __init__(
        self,
        session: TlsSession,
        client: asyncio.Transport,
        buffer: memoryview,
        frames: ClientFrames | AnyBytes,
        name: str,
        give_up_name: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        """`give_up_name` is called before the backend's socket is closed, which frees `name`.

        `answered` is called when gRPC has said something: it has the connection.
        """
        self.name = name
        self.frames = frames
        # Why it was cut, if the client is to blame.
        self.fault: Http2Abuse | None = None
        self._session = session
        self._client = client
        self._buffer = buffer
        self._give_up_name = give_up_name
        self._answered: Callable[[], None] | None = answered
        self._backend: asyncio.Transport | None = None
        # Which side does not take as fast as it is given.
        self._client_full = False
        self._backend_full = False
        self._replies_unread = False
        self.input_ended = asyncio.Event()
        self.ended = asyncio.Event()

    async def start(self, backend: socket.socket) -> None:
        """Begin, over a connected unix socket, which is the relay's from here on."""
        loop = asyncio.get_running_loop()
        # Not kept here: the ends lead back to this, and would outlive the connection.
        at_backend = _End(
            self._buffer,
            sent=self._backend_sent,
            said_all=self._backend_ended,
            lost=self._backend_closing,
            full=self._backend_is_full,
        )
        at_client = _End(
            self._buffer,
            sent=self._client_sent,
            said_all=self._client_said_all,
            lost=self._client_said_all,
            full=self._client_is_full,
        )
        self._backend, _ = await loop.create_unix_connection(lambda: at_backend, sock=backend)
        self._client.set_protocol(at_client)
        if self._client.is_closing():
            self._client_said_all()
            return
        # The last packet of a handshake often carries the first request.
        self._carry_up(self._backend)
        self._flow()

    def cut(self) -> None:
        """End both ends now; what is still on its way is lost."""
        self._client.abort()
        self.release()
        self._backend_ended()

    def release(self) -> None:
        """Close gRPC's end; the client's is the caller's."""
        self._give_up_name()
        if self._backend is not None:
            self._backend.abort()

    def _client_sent(self, ciphertext: memoryview) -> None:
        """Bytes from the client came in."""
        self._session.feed(ciphertext)
        if self._backend is not None:
            self._carry_up(self._backend)

    def _backend_sent(self, plaintext: memoryview) -> None:
        """Bytes from gRPC came in."""
        if self._answered is not None:
            self._answered()
            self._answered = None
        if self._client.is_closing():
            return
        try:
            ciphertext = self._session.encrypt(plaintext)
        except ssl.SSLError:
            # It failed while reading, so the client has its alert and gRPC the
            # end of its input; what gRPC still says has nowhere to go.
            return
        self._client.write(ciphertext)

    def _client_said_all(self) -> None:
        """Nothing more will come from the client, which may be gone altogether."""
        if not self.input_ended.is_set():
            self.input_ended.set()
            if self._backend is not None and not self._backend.is_closing():
                self._backend.write_eof()
        self._flow()

    def _backend_ended(self) -> None:
        """The backend closed the connection, or lost it."""
        self.input_ended.set()
        self.ended.set()

    def _backend_closing(self) -> None:
        """The backend's socket is about to be closed."""
        self._give_up_name()
        self._backend_ended()

    def _client_is_full(self, full: bool) -> None:
        self._client_full = full
        self._flow()

    def _backend_is_full(self, full: bool) -> None:
        self._backend_full = full
        self._flow()

    def _flow(self) -> None:
        """Read of each side what the other takes."""
        if self._backend is None:
            return
        self._replies_unread &= self._client_full
        # Nobody drains a client that is gone; that gRPC ends must be seen all the same.
        _read(self._backend, wanted=not self._client_full or self._client.is_closing())
        held = self._backend_full or self._replies_unread or self.input_ended.is_set()
        _read(self._client, wanted=not held)

    def _carry_up(self, backend: asyncio.Transport) -> None:
        try:
            for plaintext in self._session.decrypt():
                if backend.is_closing():
                    return
                backend.write(self.frames.take(plaintext))
        except Http2Abuse as fault:
            self.fault = fault
            self.cut()
            return
        except ssl.SSLError:
            self._client.write(self._session.outgoing())
            self._client_said_all()
            return
        # A client may ask for new keys, again and again, and never read the
        # answers (RFC 8446, 4.6.3), so these count as well.
        if replies := self._session.outgoing():
            self._client.write(replies)
            self._replies_unread = self._client_full
            self._flow()
        if self._session.ended:
            self._client_said_all()


def _read(transport: asyncio.Transport, *, wanted: bool) -> None:
    if transport.is_closing():
        return
    if wanted:
        transport.resume_reading()
    else:
        transport.pause_reading()


class _End(asyncio.BufferedProtocol):
    """One side of a relay: tells it what happens there."""

    def __init__(
        self,
        buffer: memoryview,
        *,
        sent: Callable[[memoryview], None],
        said_all: Callable[[], None],
        lost: Callable[[], None],
        full: Callable[[bool], None],
    ) -> None:
        self._buffer = buffer
        self._sent = sent
        self._said_all = said_all
        self._lost = lost
        self._full = full

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._sent(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        self._said_all()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost()

    def pause_writing(self) -> None:
        self._full(True)

    def resume_writing(self) -> None:
        self._full(False)
