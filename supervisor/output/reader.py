"""Reading a job's output: by offset, by time, by stream, from its end; gaps told as gaps."""

import bisect
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from jobworker.supervisor.output.segments import GAP, Record, Segment, segment_starts

_TAIL_BLOCK = 64 * 1024
# So many records are looked at within some milliseconds.
_RECORDS_AT_ONCE = 10_000


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

    `end` is always how far the caller knows the output to reach: all there is
    to read before it, and to know of that, has been written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment: Segment | None = None
        # The number of the record read last: the next is most often near.
        self._number = 0

    def read(
        self,
        offset: int,
        end: int,
        limit: int,
        *,
        stream: int = 0,
        by_stream: bool = False,
        by_run: bool = False,
    ) -> Chunk | Gap | None:
        """What is at `offset`, which is before `end`; of at most `limit` bytes.

        With `by_run` a chunk has one stream and one time. With a `stream` the
        rest is passed over: None when there is none of it before `end`. With
        `by_stream` a chunk has one stream, and its time is the first byte's.
        """
        at = offset
        while at < end:
            segment, run = self._run(at, end)
            if segment is None or run.stream == GAP:
                return Gap(run.offset, run.end - run.offset)
            if stream and run.stream != stream:
                at = self._pass_over(segment, run, end, stream)
                continue
            single = bool(by_run or by_stream or stream)
            stop = min(at + limit, end)
            if by_run or (stream and not by_stream):
                stop = min(stop, run.end)
            else:
                stop = self._extent(segment, stop, run.stream if single else 0)
            data = segment.read(at, stop - at)
            if not data:
                # Somebody has cut the file short.
                return Gap(at, run.end - at)
            return Chunk(at, data, run.time_ns, run.stream if single else 0)
        return None

    def skip(self, offset: int, end: int, stream: int) -> int:
        """How far there is nothing of a stream and no gap; `offset` where there is.

        It looks no further than takes a moment: go on until it is the same again.
        """
        if offset >= end:
            return offset
        segment, run = self._run(offset, end)
        if segment is None or run.stream in (GAP, stream):
            return offset
        return self._pass_over(segment, run, end, stream)

    def _run(self, offset: int, end: int) -> tuple[Segment | None, Run]:
        """The run at `offset`, cut off before it, and its segment; a GAP where there is none."""
        segment = self._open(offset)
        if segment is None:
            starts = segment_starts(self._directory)
            following = min((start for start in starts if start > offset), default=end)
            return None, Run(offset, min(following, end), 0, GAP)
        number = segment.index.at(offset, self._number)
        if number < 0:
            return None, Run(offset, min(segment.end, end), 0, GAP)
        self._number = number
        record, following_record = [*islice(segment.index.onward(number), 2), None][:2]
        assert record is not None  # noqa: S101 - it has just been found
        stop = following_record.offset if following_record else segment.end
        return segment, Run(offset, min(stop, end), record.time_ns, record.stream)

    def _pass_over(self, segment: Segment, run: Run, end: int, stream: int) -> int:
        """Where, after a run of another stream, one of this or a gap may begin."""
        at = run.end
        records = segment.index.onward(self._number + 1)
        for record in islice(records, _RECORDS_AT_ONCE):
            at = min(record.offset, end)
            if at == end or record.stream in (GAP, stream):
                return at
        return at if next(records, None) else min(segment.end, end)

    def _extent(self, segment: Segment, stop: int, stream: int) -> int:
        """How far data of a stream (0: of any) goes on after the last record, up to `stop`."""
        for record in segment.index.onward(self._number + 1):
            if record.offset >= stop:
                return stop
            if record.stream == GAP or stream not in (0, record.stream):
                return record.offset
        return min(segment.end, stop)

    def _open(self, offset: int) -> Segment | None:
        """The segment that holds the offset; None where none does."""
        segment = self._segment
        if segment is not None and segment.start <= offset < segment.end:
            return segment
        self.close()
        before: list[int] | None = None
        while (starts := segment_starts(self._directory)) != before:
            before = starts
            at = bisect.bisect_right(starts, offset) - 1
            # It may have been dropped, or the next begun, since they were listed.
            segment = self._try(starts[at]) if at >= 0 else None
            if segment is not None and offset < segment.end:
                return segment
        return None

    def _try(self, start: int) -> Segment | None:
        """Open a segment, if it is still there."""
        self.close()
        try:
            self._segment = Segment(self._directory, start)
        except FileNotFoundError:
            return None
        self._number = 0
        return self._segment

    # -- where to begin ------------------------------------------------------------

    def begin(self, end: int) -> int:
        """The offset of the first byte that is kept."""
        return next(iter(segment_starts(self._directory)), end)

    def offset_since(self, time_ns: int, end: int) -> int:
        """The offset of the first byte that arrived at that time or later; `end` if none did.

        A gap that began before counts as well: it may have gone on until then. What
        follows may have earlier times, where the clock was set back: from one
        segment to the next, and within those that earlier versions wrote.
        """
        offset = end
        before: Record | None = None
        for segment in self._segments_backwards():
            number = segment.index.since(time_ns)
            count = len(segment.index)
            if number < count:
                offset, before = min(segment.index[number].offset, end), None
            if number and before is None:
                before = segment.index[number - 1]
        return min(before.offset, offset) if before and before.stream == GAP else offset

    def offset_until(self, time_ns: int, end: int) -> int:
        """The offset after the last byte that arrived before that time."""
        following = end
        for segment in self._segments_backwards():
            number = segment.index.until(time_ns)
            if number:
                last = number == len(segment.index)
                return min(following if last else segment.index[number].offset, end)
            following = segment.start
        return min(following, end)

    def _segments_backwards(self) -> Iterator[Segment]:
        """The segments that are there, the newest first."""
        for start in reversed(segment_starts(self._directory)):
            segment = self._try(start)
            if segment is None:
                return
            yield segment

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
            for record in segment.index.backward(segment.index.at(end - 1)):
                wanted = record.stream != GAP and stream in (0, record.stream)
                if wanted and record.offset < end:
                    yield Run(record.offset, end, record.time_ns, record.stream)
                end = min(end, record.offset)
            end = segment.start

    def close(self) -> None:
        """Close the open segment, if any."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
