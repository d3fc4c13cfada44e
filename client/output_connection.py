"""A job's output without gRPC, over a connection of its own: OutputFrame in workerservice.proto.

gRPC's Python layer copies every message several times, which costs more than
receiving and decrypting it; this is for output that comes in a flood.
"""

import contextlib
import importlib.util
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from typing import Self, cast

import grpc

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import NotServed, call_failed_with
from jobworker.client.pieces import Chunk, Gap, Piece, chunk_of
from jobworker.client.tls import client_context
from jobworker.proto import workerservice_pb2 as pb

# ALPN (RFC 7301).
PROTOCOL = "jobworker-output/1"
CONNECT_SECONDS = 5.0
_LENGTH = struct.Struct(">I")
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
# Received at once: a whole piece, as the server sends them in a flood.
_RECEIVE_BYTES = 1024 * 1024
# Waking up for less of what is sure to come costs more than it gains, unless
# it comes so slowly that a person would see it come in jerks.
_WAKE_BYTES = 896 * 1024
_WAKE_SECONDS = 0.1
# RFC 8446, 5.1 and 5.2: no record carries more, and none is longer.
_RECORD_BYTES = 16 * 1024
_MOST_RECORD_BYTES = 5 + _RECORD_BYTES + 256
# socket(7), SO_RCVTIMEO: a struct timeval, of which zero is for ever.
_TIMEVAL = struct.Struct("ll")
_FOR_EVER = _TIMEVAL.pack(0, 0)
_FOR_A_MOMENT = _TIMEVAL.pack(0, int(_WAKE_SECONDS * 1e6))
# A server that vanished without a word is noticed within a minute; tcp(7). The last of
# them, in milliseconds, is for one that vanished before it had our request.
# macOS and Windows do not have all of them.
_KEEPALIVE = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 60_000),
    )
    if hasattr(socket, name)
)
# Whether SO_RCVLOWAT and SO_RCVTIMEO are what socket(7) says.
_WAKES_LATE = sys.platform == "linux"


# A server sends pieces of 1 MiB at most; more is not for us to hold.
_MOST_DECODED_BYTES = 64 * 1024 * 1024


class OutputConnection:
    """The client's end. Close it."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect. Raises NotServed, whatever the reason: gRPC tells it in better words."""
        host, port = endpoint.address
        try:
            context = client_context(endpoint, [PROTOCOL, "h2"])
            self._socket = socket.create_connection((host, port), CONNECT_SECONDS)
        except OSError as error:
            raise NotServed(str(error)) from error
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._ciphertext = memoryview(bytearray(_RECEIVE_BYTES))
        # Decrypted and not yet read is what is between the two offsets.
        self._plaintext = memoryview(bytearray(_RECEIVE_BYTES))
        self._begin = self._end = 0
        # What the kernel wakes us for.
        self._least = 1
        # How much came compressed, as it came.
        self.encoded_bytes = 0
        try:
            self._handshake()
        except OSError as error:
            self.close()
            raise NotServed(str(error)) from error
        if self._tls.selected_alpn_protocol() != PROTOCOL:
            self.close()
            raise NotServed("the server does not know this protocol")

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            else:
                break
        self._flush()
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def output(self, request: pb.GetOutputRequest, rate: float = 0.0) -> Iterator[Piece]:
        """Yield what a request selects, as it comes in; to be called once.

        `rate` is how many bytes of output a second came before, 0 for not known.
        A chunk's data is overwritten when the next piece is asked for.

        Raises:
            CallFailed: It ended with another status than OK; with UNAVAILABLE
                if the connection broke.
        """
        try:
            asked = _with_encodings(request, rate).SerializeToString()
            self._tls.write(_LENGTH.pack(len(asked)) + asked)
            self._flush()
            yield from self._pieces()
        except OSError as error:
            raise call_failed_with("UNAVAILABLE", f"the connection broke: {error}") from error

    def _pieces(self) -> Iterator[Piece]:
        while True:
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            frame = pb.OutputFrame.FromString(self._read(length))
            self.encoded_bytes += frame.encodedBytes
            if frame.HasField("end"):
                if frame.end.code:
                    raise call_failed_with(_CODES[frame.end.code], frame.end.message)
                return
            if frame.gapBytes:
                yield Gap(frame.offset, frame.gapBytes)
            if frame.encoding == pb.OUTPUT_ENCODING_IDENTITY:
                yield from self._chunks(frame)
            else:
                yield chunk_of(frame, frame.offset, decoded(frame, self._read(frame.encodedBytes)))

    def _chunks(self, frame: pb.OutputFrame) -> Iterator[Chunk]:
        """The data of a frame, in chunks as it comes in."""
        offset, end = frame.offset, frame.offset + frame.dataBytes
        while offset < end:
            data = self._some(end - offset)
            yield chunk_of(frame, offset, data)
            offset += len(data)

    def _read(self, length: int) -> bytes:
        """Exactly so many bytes."""
        data = bytearray()
        while len(data) < length:
            data += self._some(length - len(data))
        return bytes(data)

    def _some(self, most: int) -> memoryview:
        """At least one byte, and at most so many, which are sure to come.

        They are there until it is called again. Raises OSError when nothing more comes.
        """
        if self._begin == self._end:
            # A record that has come in part is with OpenSSL already.
            self._wake_for(max(1, min(most - _MOST_RECORD_BYTES, _WAKE_BYTES)))
            self._decrypt()
        end = min(self._end, self._begin + most)
        data = self._plaintext[self._begin : end]
        self._begin = end
        return data

    def _wake_for(self, least: int) -> None:
        """Have the kernel wake us for so much, or what came in a moment (SO_RCVLOWAT)."""
        if least == self._least or not _WAKES_LATE:
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
        if (least == 1) != (self._least == 1):
            wait = _FOR_EVER if least == 1 else _FOR_A_MOMENT
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self._least = least

    def _decrypt(self) -> None:
        """Take in what has come; wait if that is nothing."""
        self._begin = self._end = 0
        while True:
            try:
                # As much as there is room for: more may be waiting.
                while len(self._plaintext) - self._end >= _RECORD_BYTES:
                    count = self._read_record(self._plaintext[self._end :])
                    if not count:
                        break
                    self._end += count
            except ssl.SSLWantReadError:
                if not self._end:
                    self._receive()
                    continue
            if not self._end:
                raise ConnectionResetError("the server ended it before the output's end")
            return

    def _read_record(self, into: memoryview) -> int:
        """Decrypt some; 0 when the server has said that nothing more comes."""
        # ssl reads into any buffer, though its types do not say so.
        return cast(int, self._tls.read(_RECORD_BYTES, cast(bytearray, into)))

    def _receive(self) -> None:
        try:
            count = self._socket.recv_into(self._ciphertext)
        except BlockingIOError:
            # Too little came in a moment: be content with anything.
            self._wake_for(1)
            return
        if not count:
            raise ConnectionResetError("the server hung up")
        self._incoming.write(self._ciphertext[:count])

    def _flush(self) -> None:
        self._socket.sendall(self._outgoing.read())

    def hang_up(self) -> None:
        """End it from another thread: who waits for more gets CallFailed. Close it all the same."""
        # It may have ended by itself.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_encodings(request: pb.GetOutputRequest, rate: float) -> pb.GetOutputRequest:
    """Return the request, and what we can decode: Zstandard, where its library is installed."""
    asked = pb.GetOutputRequest()
    asked.CopyFrom(request)
    if importlib.util.find_spec("zstandard") is not None:
        asked.acceptEncodings.append(pb.OUTPUT_ENCODING_ZSTD)
        asked.receivedPerSecond = int(rate)
    return asked


def decoded(frame: pb.OutputFrame, encoded: bytes) -> bytes:
    """Return a frame's data, which came as `encoded`.

    Raises:
        OSError: It is not what the frame says.
    """
    # Where nothing is compressed, it need not be loaded.
    import zstandard

    if frame.encoding != pb.OUTPUT_ENCODING_ZSTD or frame.dataBytes > _MOST_DECODED_BYTES:
        raise OSError("the server sent an encoding that was not asked for")
    try:
        # Before it is decoded: what it says of itself decides how much memory that takes.
        if zstandard.frame_content_size(encoded) == frame.dataBytes:
            return zstandard.decompress(encoded)
    except zstandard.ZstdError as error:
        raise OSError(f"the server sent damaged data: {error}") from error
    raise OSError("the server sent another number of bytes than it said")
