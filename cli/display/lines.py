"""Output cut into lines, so that each can be told whose it is and when it came."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from jobworker.client.pieces import Chunk

# A line that grows longer is not held back for its end: memory stays bounded,
# whatever a job writes.
LONGEST_LINE_BYTES = 1024 * 1024

NEWLINE = b"\n"


class Part(NamedTuple):
    """A line, or a part of a long one: `prefix` is to stand where the line begins.

    `text` has the newline in it when the line `ends`.
    """

    stream: str | None
    prefix: bytes
    text: bytes
    ends: bool


class _Unfinished(NamedTuple):
    """A line without an end yet; `text` is what is held back, `begun` says that some is not."""

    time: datetime | None
    text: bytes = b""
    begun: bool = False


class LineCutter:
    """Gives the output of one job as lines, each with a label before it.

    stdout and stderr are put together apart, so a line of one never holds a
    piece of the other. A line's time is that of its first byte.
    """

    def __init__(self, label: str, *, timestamps: bool) -> None:
        self._label = label
        self._timestamps = timestamps
        self._unfinished: dict[str | None, _Unfinished] = {}

    def parts(self, chunk: Chunk) -> Iterator[Part]:
        """Yield the lines that end in `chunk`, and what comes of a long one."""
        line = self._unfinished.pop(chunk.stream, _Unfinished(chunk.time))
        *ended, rest = bytes(chunk.data).split(NEWLINE)
        for text in ended:
            yield self._part(chunk.stream, line, line.text + text, ends=True)
            line = _Unfinished(chunk.time)
        held = line.text + rest
        if line.begun or len(held) > LONGEST_LINE_BYTES:
            if held:
                yield self._part(chunk.stream, line, held, ends=False)
            self._unfinished[chunk.stream] = _Unfinished(line.time, begun=True)
        elif held:
            self._unfinished[chunk.stream] = _Unfinished(line.time, held)

    def rest(self) -> Iterator[Part]:
        """Yield the lines that have no end, once the output has one."""
        for stream, line in self._unfinished.items():
            yield self._part(stream, line, line.text, ends=True)
        self._unfinished.clear()

    def _part(self, stream: str | None, line: _Unfinished, text: bytes, *, ends: bool) -> Part:
        stamp = f"{_stamp(line.time)} " if self._timestamps and line.time else ""
        prefix = f"{self._label}{stamp}".encode()
        return Part(stream, prefix, text + NEWLINE if ends else text, ends)


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
