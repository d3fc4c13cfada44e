"""The end of a connection: the last words, and the time to hear them."""

import asyncio

# How long a client may take to read what was written to it before.
_BACKLOG_SECONDS = 30.0


async def farewell(
    client: asyncio.Transport, last_words: bytes, buffer: memoryview, seconds: float
) -> None:
    """Send the last bytes, give the client `seconds` to read them and end its half, and close.

    It has longer if it is behind with what was sent before.
    """
    if not client.is_closing():
        if client.get_write_buffer_size() > 0:
            seconds = max(seconds, _BACKLOG_SECONDS)
        discard = _Discard(buffer)
        client.set_protocol(discard)
        client.resume_reading()
        client.write(last_words)
        client.write_eof()
        try:
            async with asyncio.timeout(seconds):
                await discard.ended.wait()
        except TimeoutError:
            pass
    client.abort()


class _Discard(asyncio.BufferedProtocol):
    """Reads on and keeps nothing, until the client ends the connection."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self.ended = asyncio.Event()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the client's next bytes go."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Drop them."""

    def eof_received(self) -> None:
        """The client has read all there was and closed."""
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        del exc
        self.ended.set()
