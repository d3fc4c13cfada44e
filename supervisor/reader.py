"""Reading a job's output: by offset, by time, by stream, from its end; gaps told as gaps."""

import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from jobworker.supervisor.segments import GAP, Segment, segment_starts

_TAIL_BLOCK = 64 * 1024


class Chunk(NamedTuple):
    """Some output: `offset` is its first byte's, `time_ns` when it arrived, 1970-based.

    `stream` is STDOUT or STDERR, or 0 where both may be in it; then `time_ns`
    is the first byte's.
    """

    offset: int
    data: bytes
    time_ns: int = 0
    stream: int = 0


class Gap(NamedTuple):
    """Bytes that were written but are not kept: dropped by a limit, or for want of space."""

    offset: int
    length: int


class Run(NamedTuple):
    """A stretch of one stream, or (GAP) of nothing."""

    offset: int
    end: int
    time_ns: int
    stream: int


class OutputReader:
    """Reads one job's segments; keeps one of them open. Close it.

    `end` is always how far the caller knows the output to reach: a segment that
    is still being written is never mistaken for a full one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment: Segment | None = None
        # The segment after the open one, as far as is known.
        self._next: int | None = None

    def read(
        self, offset: int, end: int, limit: int, *, stream: int = 0, by_run: bool = False
    ) -> Chunk | Gap | None:
        """What is at `offset`, which is before `end`; of at most `limit` bytes.

        With `by_run` a chunk has one stream and one time. With a `stream` the
        rest is passed over: None when there is none of it before `end`.
        """
        at: int | None = offset
        while at is not None and at < end:
            run = self._run(at, end)
            if run.stream == GAP:
                return Gap(run.offset, run.end - run.offset)
            if stream and run.stream != stream:
                at = run.end
                continue
            stop = min(at + limit, end)
            if not (by_run or stream):
                stop = self._extent(run, stop)
            assert self._segment is not None  # noqa: S101 - the run is in it
            data = self._segment.read(at, min(stop, run.end if by_run or stream else stop) - at)
            if not data:
                # A rotation dropped what followed the segment while it was open here.
                return Gap(at, min(self._next or end, end) - at)
            return Chunk(at, data, run.time_ns, run.stream if by_run or stream else 0)
        return None

    def _run(self, offset: int, end: int) -> Run:
        """The run that holds `offset`, cut off before it; what is missing is a GAP."""
        while True:
            segment = self._open(offset)
            if segment is None:
                following = min(
                    (s for s in segment_starts(self._directory) if s > offset), default=end
                )
                return Run(offset, min(following, end), 0, GAP)
            number = segment.index.at(offset)
            if number < 0:
                return Run(offset, min(self._next or end, end), 0, GAP)
            record = segment.index[number]
            stop = self._end_of(segment, number, end)
            if stop > offset:
                return Run(offset, stop, record.time_ns, record.stream)
            # It ended just here, and there is a newer segment by now.
            self.close()

    def _end_of(self, segment: Segment, number: int, end: int) -> int:
        try:
            following = segment.index[number + 1]
        except IndexError:
            following = None
        if following is not None and following.time_ns:
            return min(following.offset, end)
        return min(self._next if self._next is not None else end, end)

    def _extent(self, run: Run, stop: int) -> int:
        """How far data goes on from a run, whatever its stream, up to `stop`."""
        assert self._segment is not None  # noqa: S101 - the run is in it
        number = self._segment.index.at(run.offset)
        reach = run.end
        while reach < stop:
            number += 1
            try:
                record = self._segment.index[number]
            except IndexError:
                break
            if not record.time_ns or record.stream == GAP:
                break
            reach = max(reach, self._end_of(self._segment, number, stop))
        return min(reach, stop)

    def _open(self, offset: int) -> Segment | None:
        """The segment that holds the offset; None where none does."""
        if self._segment is not None and self._segment.start <= offset:
            if self._next is not None and offset < self._next:
                return self._segment
            starts = segment_starts(self._directory)
            later = [start for start in starts if start > self._segment.start]
            self._next = later[0] if later else None
            if self._next is None or offset < self._next:
                return self._segment
        return self._open_anew(offset)

    def _open_anew(self, offset: int) -> Segment | None:
        self.close()
        while True:
            starts = segment_starts(self._directory)
            at = bisect.bisect_right(starts, offset) - 1
            if at < 0:
                return None
            try:
                self._segment = Segment(self._directory, starts[at])
            except FileNotFoundError:
                # Dropped by a rotation since it was listed.
                continue
            self._next = starts[at + 1] if at + 1 < len(starts) else None
            return self._segment

    # -- where to begin ------------------------------------------------------------

    def begin(self, end: int) -> int:
        """The offset of the first byte that is kept."""
        return next(iter(segment_starts(self._directory)), end)

    def offset_since(self, time_ns: int, end: int) -> int:
        """The offset of the first byte that arrived at that time or later; `end` if none did."""
        for start in segment_starts(self._directory):
            segment = self._open_anew(start)
            if segment is None or segment.start != start:
                continue
            number = segment.index.since(time_ns)
            if number < len(segment.index):
                return min(segment.index[number].offset, end)
        return end

    def offset_of_tail_bytes(self, count: int, end: int, stream: int = 0) -> int:
        """Where the last `count` bytes (of a stream) begin."""
        offset = end
        for run in self._runs_backwards(end, stream):
            take = min(count, run.end - run.offset)
            count -= take
            offset = run.end - take
            if not count:
                break
        return offset

    def offset_of_tail_lines(self, count: int, end: int, stream: int = 0) -> int:
        """Where the last `count` lines (of a stream) begin; a last line needs no newline."""
        if not count:
            return end
        offset = end
        # The newline that ends the last line is none between two lines.
        wanted = count
        last = True
        for run in self._runs_backwards(end, stream):
            for block_start in range(run.end - 1, run.offset - 1, -_TAIL_BLOCK):
                low = max(run.offset, block_start - _TAIL_BLOCK + 1)
                block = self._bytes(low, block_start + 1)
                if last:
                    wanted += block.endswith(b"\n")
                    last = False
                at = len(block)
                while (at := block.rfind(b"\n", 0, at)) >= 0:
                    wanted -= 1
                    if not wanted:
                        return low + at + 1
                offset = low
        return offset

    def _bytes(self, low: int, high: int) -> bytes:
        segment = self._open(low)
        return segment.read(low, high - low) if segment is not None else b""

    def _runs_backwards(self, end: int, stream: int) -> Iterator[Run]:
        """Runs of a stream (0: of any, gaps left out), the newest first."""
        while end > 0:
            segment = self._open(end - 1)
            if segment is None:
                return
            for number in range(segment.index.at(end - 1), -1, -1):
                record = segment.index[number]
                stop = self._end_of(segment, number, end)
                wanted = record.stream != GAP and stream in (0, record.stream)
                if wanted and record.offset < stop:
                    yield Run(record.offset, stop, record.time_ns, record.stream)
            end = segment.start

    def close(self) -> None:
        """Close the open segment, if any."""
        if self._segment is not None:
            self._segment.close()
            self._segment = self._next = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
