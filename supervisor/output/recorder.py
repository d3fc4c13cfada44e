"""Moving a job's output from its pipes into its segments, losing nothing at any crash.

splice(2) takes bytes out of the pipe and puts them into the file in one system
call, so there is no moment at which a killed supervisor holds bytes that are
nowhere else. The end of the output is the size of the last file.
"""

import contextlib
import errno
import os
import select
from pathlib import Path
from typing import NamedTuple

from jobworker.supervisor.host.disk_space import NO_ROOM
from jobworker.supervisor.host.holes import punch
from jobworker.supervisor.output import segments
from jobworker.supervisor.output.limbo import Limbo
from jobworker.supervisor.output.segments import ASCENDING, GAP, INDEX_BLOCK, RECORD, Index

# Bytes of one stream that arrive within so many nanoseconds share a time.
TIME_RESOLUTION_NS = 5_000_000
# Within a segment times never go back. A clock that was set back by more than this
# begins another, as if that were full; by less, and time stands still for as long.
STEP_NS = 1_000_000_000
# A rotating output is kept in so many segments or more, so that what is
# dropped at once is a small part of it.
SEGMENTS_KEPT = 8
# At least a block of any file system: room is given back in whole ones.
_BLOCK = 64 * 1024


class Keep(NamedTuple):
    """How much of an output to keep: the newest `rotate` bytes, or all (0), in segments."""

    segment_bytes: int
    rotate: int = 0

    @property
    def segment(self) -> int:
        """The size of a segment, in bytes."""
        if not self.rotate:
            return self.segment_bytes
        return max(1, min(self.segment_bytes, self.rotate // SEGMENTS_KEPT))


class Recorder:
    """Writes one job's segments; makes the directory with the first byte. Close it."""

    def __init__(self, directory: Path, keep: Keep, *, new: bool = False) -> None:
        """Go on where the directory's last segment ends; `new`: there is no directory yet."""
        self._directory = directory
        self._keep = keep
        self._data = self._index = -1
        self._records = self._slots = self._first = 0
        self._start = 0
        self._stream = self._begun = -1
        self._time = 0
        # The file system can have holes, as far as is known.
        self._holes = True
        self.end = 0
        self._starts = [] if new else segments.segment_starts(directory)
        if self._starts:
            self.end = segments.recorded_end(directory)

    @property
    def begin(self) -> int:
        """The offset of the first byte that is kept."""
        return self._starts[0] if self._starts else self.end

    def record(self, pipe: int, stream: int, now_ns: int, limit: int) -> int:
        """Move up to `limit` bytes of a stream from a non-blocking pipe.

        Returns the bytes moved, 0 at the end of the pipe. Raises
        BlockingIOError when the pipe is empty, and OSError (NO_ROOM, EIO) when
        the file cannot be written; the bytes then stay in the pipe.
        """
        if self._data < 0 and not _has_bytes(pipe):
            return 0
        self._make_room(now_ns)
        self._begin_run(self.end, stream, now_ns)
        moved = os.splice(
            pipe,
            self._data,
            min(limit, self._start + self._keep.segment - self.end),
            offset_dst=self.end - self._start,
            flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE,
        )
        self.end += moved
        return moved

    def lose(self, pipe: int, limbo: Limbo, now_ns: int, limit: int) -> int:
        """Take up to `limit` bytes out of the pipe that are not to be kept: they become a gap.

        Returns and raises as `record` does, except that it needs no room but for a
        job's first byte.

        The file takes the bytes, which a record before them says are none, and gives
        their room back: so a death at any moment leaves the gap as long as it is.
        Without room for that, or holes, `limbo` takes them, with the same promise.
        """
        if self._data < 0:
            if not _has_bytes(pipe):
                return 0
            self._open_last()
        if self._was_cut():
            self._begin_segment()
        self._begin_run(self.end, GAP, now_ns)
        size = self.end - self._start
        lost = self._swallow(pipe, size, limit) if self._holes else -1
        if lost < 0:
            path = segments.data_path(self._directory, self._start)
            lost = limbo.swallow(pipe, limit, path, size)
        self.end += lost
        return lost

    def _swallow(self, pipe: int, size: int, limit: int) -> int:
        """Take bytes into a hole behind those that are there; -1 where there can be none."""
        try:
            taken = os.splice(
                pipe,
                self._data,
                limit,
                offset_dst=size,
                flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE,
            )
        except OSError as error:
            if error.errno in NO_ROOM:
                return -1
            raise
        # With what is left of a block that could not be given back as a part.
        self._give_back(max(self._begun - self._start, size - _BLOCK), size + taken)
        return taken

    def _give_back(self, begin: int, end: int) -> None:
        """Free the room of a part of the segment that holds nothing."""
        try:
            if begin < end:
                punch(self._data, begin, end - begin)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, *NO_ROOM):
                raise
            self._holes = False

    def _was_cut(self) -> bool:
        """Whether somebody has cut the segment short: what is behind must not be read as zeros."""
        return self.end > self._start and (
            os.fstat(self._data).st_size < self.end - self._start
            or os.fstat(self._index).st_size < self._slots * RECORD.size
        )

    def _make_room(self, now_ns: int) -> None:
        """Have a segment open that is not full, and drop the oldest when there is too much."""
        if self._data < 0:
            self._open_last()
        stepped_back = now_ns < self._time - STEP_NS and self.end > self._start
        full = self.end - self._start >= self._keep.segment
        if full or stepped_back or self._was_cut():
            self._begin_segment()

    def _begin_segment(self) -> None:
        # Before there is one more, as that may need the room.
        self._drop_oldest()
        self._open(self.end)
        self._starts.append(self.end)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        # The last one stays: where it ends is where the output does.
        while self._keep.rotate and len(self._starts) > 1:
            if self.end - self._starts[0] <= self._keep.rotate - self._keep.segment:
                return
            self._drop(self._starts.pop(0))

    def _drop(self, start: int) -> None:
        # The data first: what has no data file is no segment.
        for path in (
            segments.data_path(self._directory, start),
            segments.index_path(self._directory, start),
        ):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def redate(self, moved: int, stream: int, now_ns: int) -> None:
        """Give the bytes that were moved last a later time, if there is room to note it."""
        with contextlib.suppress(OSError):
            self._begin_run(self.end - moved, stream, now_ns)

    def _begin_run(self, offset: int, stream: int, now_ns: int) -> None:
        # Of a run that came to nothing no record is needed.
        number = self._records - (self._begun == offset)
        if number:
            now_ns = max(now_ns, self._time)
        fresh = 0 <= now_ns - self._time < TIME_RESOLUTION_NS
        # A gap is one run however long it lasts.
        if stream == self._stream and (fresh or stream == GAP):
            return
        # One slot is left free for a gap, which must need no room.
        if self._first + number + (stream != GAP) >= self._slots:
            os.posix_fallocate(self._index, self._slots * RECORD.size, INDEX_BLOCK)
            self._slots += INDEX_BLOCK // RECORD.size
        record = RECORD.pack(offset, max(1, now_ns), stream)
        os.pwrite(self._index, record, (self._first + number) * RECORD.size)
        self._records = number + 1
        self._begun, self._stream, self._time = offset, stream, now_ns

    def _open_last(self) -> None:
        """Open the last segment, or make the first."""
        if not self._starts:
            self._open(0)
            self._starts.append(0)
        else:
            self._open(self._starts[-1])

    def _open(self, start: int) -> None:
        """Open a segment for writing, making it when it is not there."""
        self._directory.mkdir(mode=0o750, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        # The index first: a data file without one would be bytes without a time.
        index = os.open(segments.index_path(self._directory, start), flags, 0o640)
        try:
            if os.fstat(index).st_size < INDEX_BLOCK:
                os.posix_fallocate(index, 0, INDEX_BLOCK)
            if not any(os.pread(index, RECORD.size, 0)):
                os.pwrite(index, RECORD.pack(start, 1, ASCENDING), 0)
            data = os.open(segments.data_path(self._directory, start), flags, 0o640)
        except OSError:
            os.close(index)
            raise
        self.close()
        self._index, self._data = index, data
        self._start = start
        self._resume(Index(index))

    def _resume(self, index: Index) -> None:
        """Go on after the last record; in a gap, if it began one."""
        self._records = len(index)
        self._first = index.first
        self._slots = os.fstat(self._index).st_size // RECORD.size
        self._begun = self._stream = -1
        self._time = 0
        if self._records:
            last = index[self._records - 1]
            self._begun, self._time = last.offset, last.time_ns
            self._stream = GAP if last.stream == GAP else -1
            if last.stream == GAP:
                # Whoever took it in may have died before.
                self._give_back(last.offset - self._start, os.fstat(self._data).st_size)

    def close(self) -> None:
        """Close the files; the output on record stays."""
        for descriptor in (self._data, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._index = -1


def _has_bytes(pipe: int) -> bool:
    """Whether there is something to read; False at the end. Raises BlockingIOError otherwise."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    events = dict(poll.poll(0)).get(pipe, 0)
    if not events:
        raise BlockingIOError
    return bool(events & select.POLLIN)
