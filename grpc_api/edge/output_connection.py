"""A connection that carries a job's output and nothing else: OutputFrame in workerservice.proto.

gRPC's Python layer copies every message several times on either side, which
costs more than reading, encrypting and sending it together.
"""

import asyncio
import ssl
import struct

from jobworker.grpc_api.edge.session import TlsSession
from jobworker.grpc_api.errors import ReaderGone
from jobworker.proto.workerservice_pb2 import OutputEnd, OutputFrame

# The length before every message.
_LENGTH = struct.Struct(">I")
# A job's ID and where to begin take far less.
_MOST_REQUEST_BYTES = 64 * 1024
# What may wait here for the client: about half a piece, so that the next can be
# read and encrypted while the kernel sends the one before.
_BACKLOG_BYTES = 512 * 1024


class OutputConnection(asyncio.BufferedProtocol):
    """The server's end, after the handshake: one request comes in, frames go out.

    A client that ends its half wants no more. `input_ended` and `ended` tell of
    the end, however it came.
    """

    name = ""

    def __init__(
        self, session: TlsSession, transport: asyncio.Transport, buffer: memoryview
    ) -> None:
        self._session = session
        self._transport = transport
        self._buffer = buffer
        self._received = bytearray()
        self._request: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()
        self.input_ended = asyncio.Event()
        self.ended = asyncio.Event()

    def start(self) -> None:
        """Take the transport over."""
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(_BACKLOG_BYTES)
        if self._transport.is_closing():
            self.end()
            return
        # The last packet of a handshake often carries the request.
        self._take()
        self._transport.resume_reading()

    async def request(self) -> bytes:
        """The GetOutputRequest, not yet parsed. Raises ReaderGone."""
        return await self._request

    def send(self, frame: OutputFrame, data: bytes = b"") -> bool:
        """Send a frame, which says how many bytes they are, and its data. Raises ReaderGone.

        Returns whether there is room for the next.
        """
        self._write(frame, data)
        return self._room.is_set()

    async def room(self) -> None:
        """Wait until there is room for a frame, or nobody to send one to."""
        await self._room.wait()

    def finish(self, end: OutputEnd) -> None:
        """Send the last frame, after which the transport is the caller's. Raises ReaderGone."""
        self._write(OutputFrame(end=end), b"")
        self.end()

    def cut(self) -> None:
        """End it now; what is still on its way is lost."""
        self._transport.abort()
        self.end()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the client's next bytes go."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the client came in."""
        self._session.feed(self._buffer[:nbytes])
        self._take()

    def eof_received(self) -> bool:
        """The client wants no more."""
        self.end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        del exc
        self.end()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._room.clear()
        # It could ask for new keys again and again and never read the answers
        # (RFC 8446, 4.6.3).
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._room.set()
        if not self.ended.is_set():
            self._transport.resume_reading()

    def _write(self, frame: OutputFrame, data: bytes) -> None:
        head = frame.SerializeToString()
        if self.ended.is_set():
            raise ReaderGone("the client hung up")
        try:
            records = self._session.encrypt(_LENGTH.pack(len(head)) + head, data)
        except ssl.SSLError as error:
            raise ReaderGone(f"the TLS session failed: {error}") from error
        self._transport.write(records)

    def _take(self) -> None:
        try:
            for plaintext in self._session.decrypt():
                self._received += plaintext
        except ssl.SSLError:
            self._transport.write(self._session.outgoing())
            self.end()
            return
        if replies := self._session.outgoing():
            self._transport.write(replies)
        self._read_request()
        if self._session.ended:
            self.end()

    def _read_request(self) -> None:
        if len(self._received) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack_from(self._received)
        end = _LENGTH.size + length
        if end > _MOST_REQUEST_BYTES or len(self._received) > end:
            # It does not speak our protocol: nothing follows a request.
            self.end()
        elif len(self._received) == end and not self._request.done():
            self._request.set_result(bytes(self._received[_LENGTH.size :]))

    def end(self) -> None:
        """Nothing more is to be sent or received."""
        self.input_ended.set()
        self.ended.set()
        self._room.set()
        if not self._request.done():
            self._request.set_exception(ReaderGone("the client hung up before it asked"))
            # Nobody may be waiting for it any more.
            self._request.exception()
