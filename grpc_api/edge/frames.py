"""What a client sends gRPC, read along frame by frame: bounded, and ended without a loss.

HTTP/2 (RFC 9113) lets a client ask for much with little: streams that are reset
as soon as they are opened, headers without an end, pings. gRPC bounds some of
that; the rest is counted here, where nothing has been allocated for it yet.
"""

import time
from collections.abc import Callable

from jobworker.grpc_api.errors import Http2Abuse

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9
# Frame types and flags (RFC 9113, 6).
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 4, 6, 8, 9
_END_STREAM = _ACK = 1


class AnyBytes:
    """In the place of ClientFrames where HTTP/2 is not spoken: reads nothing along."""

    streams = 0

    def close(self) -> None:
        """Who serves them tells what is open from what is new."""

    def take(self, data: bytes) -> bytes:
        """All of it."""
        return data


class ClientFrames:
    """One connection's frames from client to server.

    `last_stream` is the highest that was opened; `streams` is how many were.
    """

    def __init__(
        self,
        header_bytes: int,
        idle_frames: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bound the headers of a call, and the frames that ask for nothing.

        Of the latter, `idle_frames` may come at once, and a tenth of that each second.
        """
        self.last_stream = self.streams = 0
        self._most_header_bytes = header_bytes
        self._most_idle = self._idle = float(idle_frames)
        self._clock = clock
        self._looked = clock()
        # What is still to come of the preface, of a frame's header, of its content.
        self._preface = _PREFACE
        self._header = b""
        self._content = 0
        # Of the headers that have come in part.
        self._header_block = 0
        # Nothing can be read along on what is not HTTP/2; gRPC will end it.
        self._foreign = False
        self._closed = False
        # Whether gRPC has the current frame; how much of its header, if that is whole.
        self._passes = True
        self._passed = 0

    def close(self) -> None:
        """From here on let no frame of a new stream through; those that are open go on."""
        self._closed = True
        # A header that has gone in part must go on.
        self._passed = len(self._header)

    def take(self, data: bytes) -> bytes:
        """Return what gRPC is to have of what came in. Raises Http2Abuse."""
        length = len(data)
        if self._foreign:
            return data
        if self._content >= length:
            self._content -= length
            return data if self._passes else b""
        position = self._skip_preface(data) if self._preface else 0
        kept = [data[:position]] if self._closed else []
        while position < length and not self._foreign:
            if self._content:
                end = min(length, position + self._content)
                self._content -= end - position
                if self._closed and self._passes:
                    kept.append(data[position:end])
            else:
                end = min(length, position + _HEADER_BYTES - len(self._header))
                self._header += data[position:end]
                if len(self._header) == _HEADER_BYTES:
                    self._begin(self._header)
                    if self._closed and self._passes:
                        kept.append(self._header[self._passed :])
                    self._header, self._passed = b"", 0
            position = end
        return b"".join(kept) if self._closed else data

    def _skip_preface(self, data: bytes) -> int:
        length = min(len(data), len(self._preface))
        self._foreign = data[:length] != self._preface[:length]
        self._preface = self._preface[length:]
        return len(data) if self._foreign else length

    def _begin(self, header: bytes) -> None:
        """A frame begins."""
        self._content = length = int.from_bytes(header[:3])
        kind, flags = header[3], header[4]
        if kind == _DATA and length and not self._closed:
            # Most of what there is when there is much.
            return
        stream = int.from_bytes(header[5:]) & 0x7FFFFFFF
        self._passes = not self._closed or bool(self._passed) or stream <= self.last_stream
        if kind == _HEADERS:
            if self._passes and stream > self.last_stream:
                self.last_stream = stream
                self.streams += 1
            self._count_headers(length)
        elif kind == _CONTINUATION:
            self._count_headers(self._header_block + _HEADER_BYTES + length)
        elif kind == _DATA:
            if not length and not flags & _END_STREAM:
                self._count_idle()
        elif kind != _WINDOW_UPDATE and not (kind in (_SETTINGS, _PING) and flags & _ACK):
            self._count_idle()

    def _count_headers(self, length: int) -> None:
        self._header_block = length
        if length > self._most_header_bytes:
            raise Http2Abuse(f"it sent more than {self._most_header_bytes} bytes of headers")

    def _count_idle(self) -> None:
        now = self._clock()
        since, self._looked = now - self._looked, now
        self._idle = min(self._most_idle, self._idle + since * self._most_idle / 10) - 1
        if self._idle < 0:
            raise Http2Abuse(
                f"it sent more than {self._most_idle:g} frames at once that ask for nothing, "
                "such as resets and pings"
            )
