"""Carries the bytes of one connection between a TLS client and gRPC's unix socket.

Both directions are bounded: what cannot be written stops what is read, so a
connection holds at most the two transports' high-water marks and one read of
each side.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

from jobworker.grpc_api.edge.frames import ClientFrames
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
        frames: ClientFrames,
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
        self._client_full = False
        self._backend_full = False
        self._replies_unread = False
        self.input_ended = asyncio.Event()
        self.ended = asyncio.Event()

    async def start(self, backend: socket.socket) -> None:
        """Begin, over a connected unix socket, which is the relay's from here on."""
        loop = asyncio.get_running_loop()
        self._backend, _ = await loop.create_unix_connection(self._backend_end, sock=backend)
        self._client.set_protocol(self._client_end())
        if self._client.is_closing():
            self._client_lost()
            return
        # The last packet of a handshake often carries the first request.
        self._carry_up(self._backend)
        self._read_client()

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
        """Nothing more will come from the client."""
        if self.input_ended.is_set():
            return
        self.input_ended.set()
        self._client.pause_reading()
        if self._backend is not None and not self._backend.is_closing():
            self._backend.write_eof()

    def _client_lost(self) -> None:
        """The client cannot be written to either."""
        self._client_said_all()
        # Nobody will drain it; gRPC's end of the connection must be seen all the same.
        if self._backend is not None:
            self._backend.resume_reading()

    def _backend_ended(self) -> None:
        """The backend closed the connection, or lost it."""
        self.input_ended.set()
        self.ended.set()

    def _backend_closing(self) -> None:
        """The backend's socket is about to be closed."""
        self._give_up_name()
        self._backend_ended()

    def _client_filled(self) -> None:
        """The client does not read as fast as gRPC writes."""
        self._client_full = True
        if self._backend is not None:
            self._backend.pause_reading()

    def _client_drained(self) -> None:
        """The client has caught up."""
        self._client_full = self._replies_unread = False
        if self._backend is not None:
            self._backend.resume_reading()
        self._read_client()

    def _backend_filled(self) -> None:
        """The server does not read as fast as the client writes."""
        self._backend_full = True
        self._client.pause_reading()

    def _backend_drained(self) -> None:
        """The server has caught up."""
        self._backend_full = False
        self._read_client()

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
            if self._client_full:
                self._replies_unread = True
                self._client.pause_reading()
        if self._session.ended:
            self._client_said_all()

    def _client_end(self) -> "_End":
        return _End(
            self._buffer,
            sent=self._client_sent,
            said_all=self._client_said_all,
            lost=self._client_lost,
            full=self._client_filled,
            drained=self._client_drained,
        )

    def _backend_end(self) -> "_End":
        return _End(
            self._buffer,
            sent=self._backend_sent,
            said_all=self._backend_ended,
            lost=self._backend_closing,
            full=self._backend_filled,
            drained=self._backend_drained,
        )

    def _read_client(self) -> None:
        if not (self._backend_full or self._replies_unread or self.input_ended.is_set()):
            self._client.resume_reading()


class _End(asyncio.BufferedProtocol):
    """One side of a relay: tells it what happens there."""

    def __init__(
        self,
        buffer: memoryview,
        *,
        sent: Callable[[memoryview], None],
        said_all: Callable[[], None],
        lost: Callable[[], None],
        full: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._sent = sent
        self._said_all = said_all
        self._lost = lost
        self._full = full
        self._drained = drained

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
        self._full()

    def resume_writing(self) -> None:
        self._drained()
