"""Reading a job's output while it grows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time_ns

from jobworker.supervisor.ipc.snapshot import JobSnapshot
from jobworker.supervisor.ipc.watches import Watched
from jobworker.supervisor.output.reader import Chunk, Gap, OutputReader

# The largest piece: fewer, larger ones cost less to carry.
CHUNK_BYTES = 1024 * 1024
# So much is on its way to readers at once, about, in smaller pieces if they are
# many; but no piece need be smaller than this.
CARRIED_BYTES = 32 * 1024 * 1024
LEAST_BYTES = 64 * 1024
# How long output may be on its way from a job's write to its record.
ARRIVAL_SECONDS = 0.05
# What a main process has started most often ends with it, or right after.
LINGER_SECONDS = 0.2


@dataclass(frozen=True)
class Selection:
    """Which part of an output is wanted; by default all, to its end.

    At most one of `offset`, `tail_lines`, `tail_bytes` and `since_ns` says
    where it begins. `until_ns` and `since_ns` are nanoseconds since 1970. A
    `stream` of 0 is both. With `by_run` every chunk has one stream and one
    time, with `by_stream` one stream, and the first byte's time. Without
    `follow` it ends with what is there now, with `until_exit` when what the main
    process wrote is there.
    """

    offset: int = 0
    tail_lines: int | None = None
    tail_bytes: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    stream: int = 0
    follow: bool = True
    until_exit: bool = False
    by_stream: bool = False
    by_run: bool = False
    chunk_bytes: int = CHUNK_BYTES

    def begin(self, reader: OutputReader, end: int) -> int:
        """The offset it begins at, of an output that reaches to `end` now."""
        if self.tail_lines is not None:
            return reader.offset_of_tail_lines(self.tail_lines, end, self.stream)
        if self.tail_bytes is not None:
            return reader.offset_of_tail_bytes(self.tail_bytes, end, self.stream)
        if self.since_ns is not None:
            return reader.offset_since(self.since_ns, end)
        return self.offset


class Carried:
    """How many pieces readers hold at this moment: those who wait for output hold none."""

    def __init__(self) -> None:
        self._pieces = 0

    def limit(self, most: int) -> int:
        """How large, up to `most` bytes, the next piece may be."""
        return min(most, max(LEAST_BYTES, CARRIED_BYTES // (self._pieces + 1)))

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a piece for the block."""
        self._pieces += 1
        try:
            yield
        finally:
            self._pieces -= 1


# Of all readers in this process, whose memory they share.
_carried = Carried()


async def follow(
    watched: Watched, directory: Path, selection: Selection
) -> AsyncIterator[Chunk | Gap]:
    """What was selected, in pieces of at most `chunk_bytes`, as it comes."""
    job = await watched.until(lambda _: True)
    with OutputReader(directory) as reader:
        offset = selection.begin(reader, job.output_end)
        # Until when to wait for more of what a main process left; 0 for not yet.
        linger = 0.0
        while True:
            async for piece in _recorded(reader, offset, job.output_end, selection):
                with _carried.one():
                    yield piece
            offset = max(offset, job.output_end)
            if not selection.follow or job.output_complete or _over(selection):
                return
            if selection.until_exit and job.output_drained:
                linger = linger or monotonic() + LINGER_SECONDS
                if monotonic() >= linger:
                    return
            job = await _growth(watched, offset, selection, linger)


async def _recorded(
    reader: OutputReader, offset: int, end: int, selection: Selection
) -> AsyncIterator[Chunk | Gap]:
    """The pieces from `offset` to `end`."""
    if selection.until_ns is not None:
        end = min(end, reader.offset_until(selection.until_ns, end))
    by_run = selection.by_run
    while offset < end:
        if selection.stream:
            offset = await _skip(reader, offset, end, selection.stream)
        piece = reader.read(
            offset,
            end,
            _carried.limit(selection.chunk_bytes),
            stream=selection.stream,
            by_stream=selection.by_stream,
            by_run=by_run,
        )
        if piece is None:
            return
        yield piece
        offset = piece.offset + (piece.length if isinstance(piece, Gap) else len(piece.data))


async def _skip(reader: OutputReader, offset: int, end: int, stream: int) -> int:
    """Where a stream, or a gap, goes on; others have their turns meanwhile."""
    while (at := reader.skip(offset, end, stream)) != offset:
        offset = at
        await asyncio.sleep(0)
    return offset


def _over(selection: Selection) -> bool:
    """Whether nothing that is still to come was selected."""
    if selection.until_ns is None:
        return False
    return time_ns() > selection.until_ns + ARRIVAL_SECONDS * 1e9


async def _growth(
    watched: Watched, offset: int, selection: Selection, linger: float
) -> JobSnapshot:
    """The job when there is more of its output, no more to come, or the time is over."""

    def more(job: JobSnapshot) -> bool:
        drained = selection.until_exit and job.output_drained and not linger
        return job.output_end > offset or job.output_complete or drained

    seconds = [linger - monotonic()] if linger else []
    if selection.until_ns is not None:
        seconds.append((selection.until_ns - time_ns()) / 1e9 + 2 * ARRIVAL_SECONDS)
    if not seconds:
        return await watched.until(more)
    try:
        async with asyncio.timeout(max(0.0, min(seconds))):
            return await watched.until(more)
    except TimeoutError:
        return await watched.until(lambda _: True)
