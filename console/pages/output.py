"""A job's output as a page shows it: its end, each line with when it came if that is asked for."""

import re
from collections.abc import Iterable
from datetime import UTC
from typing import NamedTuple

from jobworker.console.site import Site, Verbatim
from jobworker.console.text import PlainText
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb

# Of the output, so many lines at its end are shown, and no more bytes than these: where a
# line begins in a gigabyte without one would have to be looked for.
SHOWN_LINES = 200
SHOWN_BYTES = 128 * 1024
STREAMS = {
    pb.OUTPUT_STREAM_STDOUT: "stdout",
    pb.OUTPUT_STREAM_STDERR: "stderr",
}
# The class of a time in front of a line.
TIME = "time"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Piece(NamedTuple):
    """Plain text of one stream, and when it came: empty where that is not asked for."""

    stream: str
    text: str
    time: str = ""


class Tail(NamedTuple):
    """The end of an output: pieces of (class, text), and the offsets it is from and to."""

    pieces: list[tuple[str, Verbatim]]
    begin: int
    end: int


def asking(job_id: str, *, times: bool) -> pb.GetOutputRequest:
    """For what is there now, stdout and stderr apart."""
    # With the times there is a message for each, and so there are many more.
    return pb.GetOutputRequest(
        jobID=job_id, raw=True, noFollow=True, streams=not times, detail=times
    )


def time_of(message: pb.GetOutputResponse) -> str:
    """When it came, by the server's clock and in its zone."""
    return message.time.ToDatetime(UTC).astimezone().isoformat(timespec="milliseconds")


async def tail_of(site: Site, job_id: str, caller: Caller, *, times: bool = False) -> Tail:
    """The end of a job's output as it is now. Raises Refusal."""
    asked = asking(job_id, times=times)
    asked.tailBytes = SHOWN_BYTES
    streams = {stream: PlainText() for stream in STREAMS}
    pieces: list[Piece] = []
    begin = end = -1
    async with site.calls.output(asked, caller) as messages:
        async for message in messages:
            if begin < 0:
                begin = message.offset
            end = message.offset + (message.gapBytes or len(message.data))
            if plain := streams.get(message.stream):
                text = plain.take(message.data)
                time = time_of(message) if times else ""
                pieces.append(Piece(STREAMS[message.stream], text, time))
    if begin > 0:
        pieces = _from_a_line(pieces)
    return Tail(shown(_last(pieces)), begin, max(end, 0))


def shown(pieces: Iterable[Piece]) -> list[tuple[str, Verbatim]]:
    """The pieces as (class, text), with the times in front of the lines that have one."""
    made: list[tuple[str, Verbatim]] = []
    within = dict.fromkeys(STREAMS.values(), False)
    for stream, text, time in pieces:
        for line in _LINE.findall(text) if time else [text]:
            if time and not within[stream]:
                made.append((TIME, Verbatim(f"{time} ")))
            made.append((stream, Verbatim(line)))
            within[stream] = not line.endswith("\n")
    return made


def _from_a_line(pieces: list[Piece]) -> list[Piece]:
    """What begins in the middle of a line, without that, if there is another."""
    for place, piece in enumerate(pieces):
        _, newline, rest = piece.text.partition("\n")
        if newline:
            return [piece._replace(text=rest), *pieces[place + 1 :]]
    return pieces


def _last(pieces: list[Piece]) -> list[Piece]:
    """The last SHOWN_LINES lines of it."""
    left = SHOWN_LINES
    kept: list[Piece] = []
    for piece in reversed(pieces):
        lines = piece.text.splitlines(keepends=True)
        if piece.text:
            kept.append(piece._replace(text="".join(lines[-left:])))
        left -= len(lines)
        if left <= 0:
            break
    return kept[::-1]
