"""A job's output, searched: the last lines in which a text stands."""

import asyncio
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from jobworker.console.pages.output import STREAMS, Piece, asking, shown, time_of
from jobworker.console.site import Site, Verbatim
from jobworker.console.text import PlainText
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot

MOST_LINES = 200
# At the end of the output; and so long: the front has other things to do.
MOST_BYTES = 64 * 1024 * 1024
MOST_SECONDS = 10.0
MOST_TEXT = 200
# So many bytes take some milliseconds.
_AT_ONCE = 64 * 1024
# Of a longer line what is about the text is shown, and of one without end so much is held.
_MOST_LINE = 2000
_BEFORE = 500
_MOST_HELD = 8192


class Found(NamedTuple):
    """What was found, as (class, text), and where it was looked for."""

    pieces: list[tuple[str, Verbatim]]
    # Of lines, also of those that are not shown.
    number: int
    # The first byte that was looked at, 0 if nothing before it is kept.
    begin: int
    # Behind the last one, 0 if all up to the end was looked at.
    end: int


def sought(text: str) -> str:
    r"""What is looked for, as output is shown: without what terminals would act on.

    >>> sought("\x1b[31mred\x1b[0m")
    'red'
    """
    plain = PlainText().take(text.encode(errors="replace"), last=True)
    plain = plain.partition("\n")[0][:MOST_TEXT]
    return plain if plain.strip() else ""


async def find(
    site: Site, job: JobSnapshot, text: str, caller: Caller, *, times: bool = False
) -> Found:
    """The lines of what is kept of a job's output that hold a text, in whichever case.

    One search of a user at a time. Raises Refusal.
    """
    asked = asking(job.id, times=times)
    asked.offset = begin = max(0, job.output_end - MOST_BYTES)
    lines = Lines(text)
    end = 0
    async with site.finding(caller), site.calls.output(asked, caller) as messages:
        deadline = monotonic() + MOST_SECONDS
        async for message in messages:
            if message.gapBytes:
                begin = 0 if message.offset <= begin else begin
                lines.end()
                continue
            time = time_of(message) if times else ""
            for at in range(0, len(message.data), _AT_ONCE):
                lines.take(message.stream, message.data[at : at + _AT_ONCE], time)
                # Others have their turns.
                await asyncio.sleep(0)
            if monotonic() > deadline:
                end = message.offset + len(message.data)
                break
    lines.end()
    return Found(shown(lines.found), lines.number, begin, end)


class Lines:
    """Those of an output that hold a text; the memory it takes has a bound."""

    def __init__(self, text: str) -> None:
        self._text = text.casefold()
        self._streams = {stream: _Stream() for stream in STREAMS}
        self.found: deque[Piece] = deque(maxlen=MOST_LINES)
        self.number = 0

    def take(self, stream: pb.OutputStream, data: bytes, time: str) -> None:
        """Look at what comes next of a stream."""
        if begun := self._streams.get(stream):
            self._look(stream, begun.plain.take(data), time)

    def end(self) -> None:
        """Look at what is held: nothing goes on with it."""
        for stream, begun in self._streams.items():
            self._look(stream, begun.plain.take(b"", last=True) + "\n", begun.time)
            self._streams[stream] = _Stream()

    def _look(self, stream: pb.OutputStream, text: str, time: str) -> None:
        begun = self._streams[stream]
        first = begun.time if begun.held else time
        text = begun.held + text
        cut = text.rfind("\n") + 1
        whole, begun.held = text[:cut], text[cut:]
        begun.time = time if cut else first
        self._match(stream, whole, first, time)
        if len(begun.held) > _MOST_HELD:
            self._match(stream, begun.held, begun.time, begun.time)
            # What may be the beginning of the text.
            begun.held = begun.held[len(begun.held) - len(self._text) + 1 :]

    def _match(self, stream: pb.OutputStream, text: str, first: str, time: str) -> None:
        for place, line in self._matches(text):
            self.number += 1
            self.found.append(Piece(STREAMS[stream], f"{line}\n", time if place else first))

    def _matches(self, text: str) -> Iterator[tuple[int, str]]:
        # Most of it holds nothing, which is seen at once.
        if self._text not in text.casefold():
            return
        for place, line in enumerate(text.split("\n")):
            if (at := line.casefold().find(self._text)) >= 0:
                yield place, _about(line, at)


class _Stream:
    """One of an output's streams: the line that has begun, and when."""

    def __init__(self) -> None:
        self.plain = PlainText()
        self.held = self.time = ""


def _about(line: str, at: int) -> str:
    """A line, or of a long one what is about a place."""
    if len(line) <= _MOST_LINE:
        return line
    begin = min(max(0, at - _BEFORE), len(line) - _MOST_LINE)
    end = begin + _MOST_LINE
    return f"{'… ' if begin else ''}{line[begin:end]}{' …' if end < len(line) else ''}"
