"""Frames on a multiprocessing Connection, without blocking.

A multiprocessing.Pipe() is a pair of Connections, whose `send_bytes` puts a
big-endian 32-bit length before the bytes (multiprocessing/connection.py,
Connection._send_bytes). An event loop must never block in `recv_bytes` for the
rest of a message, nor in `send_bytes` for a peer that has stopped reading, so
this speaks the same frames over an asyncio transport.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

_LENGTH = struct.Struct("!i")
# More than the largest message, a page of 1000 jobs with long command lines.
MAX_FRAME = 64 * 1024 * 1024


class FrameProtocol(asyncio.Protocol):
    """Calls `received` with every frame, and `lost` once at the end of the connection.

    `paused` is True while the peer is slow to read; `resumed` is called when
    that is over.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        lost: Callable[[], None],
        resumed: Callable[[], None] = lambda: None,
    ) -> None:
        self._received = received
        self._lost = lost
        self._resumed = resumed
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.paused = False

    def send(self, frame: bytes) -> None:
        """Send a frame; dropped when the connection is gone (`lost` tells)."""
        if self._transport is not None:
            self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def close(self) -> None:
        """End the connection after what has been sent."""
        if self._transport is not None:
            self._transport.close()

    # -- asyncio.Protocol -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio.BaseProtocol)."""
        # uvloop's transports are none by inheritance, only by what they do.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut the stream into frames (asyncio.Protocol)."""
        self._buffer += data
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            if not 0 <= length <= MAX_FRAME:
                self.close()
                return
            end = position + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            with memoryview(self._buffer) as view:
                frame = bytes(view[position + _LENGTH.size : end])
            position = end
            self._received(frame)
        del self._buffer[:position]

    def pause_writing(self) -> None:
        """The peer does not keep up (asyncio.BaseProtocol): take no more from it, either."""
        self.paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has caught up (asyncio.BaseProtocol)."""
        self.paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._resumed()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the owner (asyncio.BaseProtocol)."""
        self._transport = None
        self._lost()
