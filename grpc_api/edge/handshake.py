"""The beginning of a connection: the TLS handshake."""

import asyncio
from typing import cast

from jobworker.grpc_api.edge.session import TlsSession
from jobworker.grpc_api.errors import HandshakeRefused


class Handshake(asyncio.BufferedProtocol):
    """Takes a client's connection through the handshake.

    Await `complete` once; it returns with reading paused.
    """

    _transport: asyncio.Transport

    def __init__(self, session: TlsSession, buffer: memoryview) -> None:
        self._session = session
        self._buffer = buffer
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def complete(self, seconds: float) -> None:
        """Wait until it is.

        Raises:
            HandshakeRefused: It failed, or took longer than `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._finished
        except TimeoutError as error:
            message = f"it did not complete the handshake within {seconds:g} s"
            raise HandshakeRefused(message) from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the client's next bytes go."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Go on with the handshake."""
        if self._finished.done():
            return
        self._session.feed(self._buffer[:nbytes])
        try:
            complete = self._session.handshake()
        except HandshakeRefused as refusal:
            self._finished.set_exception(refusal)
            return
        self._transport.write(self._session.outgoing())
        if complete:
            # What follows is the relay's.
            self._transport.pause_reading()
            self._finished.set_result(None)

    def eof_received(self) -> bool:
        """The client gave up, perhaps over the server's certificate."""
        self._give_up(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._give_up(exc)

    def _give_up(self, cause: Exception | None) -> None:
        if not self._finished.done():
            refusal = HandshakeRefused("the client ended the connection")
            refusal.__cause__ = cause
            self._finished.set_exception(refusal)
