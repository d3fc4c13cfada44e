"""Output cut into lines, so that each can be told whose it is and when it came."""

from collections.abc import Iterator
from datetime import UTC, datetime

from jobworker.client.pieces import Chunk

# A line that grows longer is cut there: memory stays bounded, whatever a job writes.
LONGEST_LINE_BYTES = 1024 * 1024

NEWLINE = b"\n"


class LineCutter:
    """Gives the output of one job as lines, each with a label before it.

    stdout and stderr are put together apart, so a line of one never holds a
    piece of the other. A line's time is that of its first byte.
    """

    def __init__(self, label: str, *, timestamps: bool) -> None:
        self._label = label
        self._timestamps = timestamps
        # stream -> the time and text of its unfinished line.
        self._unfinished: dict[str | None, tuple[datetime | None, bytes]] = {}

    def lines(self, chunk: Chunk) -> Iterator[bytes]:
        """Yield the lines that end in `chunk`."""
        began, line = self._unfinished.pop(chunk.stream, (chunk.time, b""))
        *ended, rest = bytes(chunk.data).split(NEWLINE)
        for text in ended:
            yield self._labelled(began, line + text)
            began, line = chunk.time, b""
        line += rest
        while len(line) > LONGEST_LINE_BYTES:
            yield self._labelled(began, line[:LONGEST_LINE_BYTES])
            line = line[LONGEST_LINE_BYTES:]
        if line:
            self._unfinished[chunk.stream] = (began, line)

    def rest(self) -> Iterator[bytes]:
        """Yield the lines that have no end, once the output has one."""
        for began, line in self._unfinished.values():
            yield self._labelled(began, line)
        self._unfinished.clear()

    def _labelled(self, time: datetime | None, line: bytes) -> bytes:
        stamp = f"{_stamp(time)} " if self._timestamps and time else ""
        return f"{self._label}{stamp}".encode() + line + NEWLINE


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
