"""The files a job's output is kept in.

A job's directory holds segments. Each is two files named by the global offset
of the segment's first byte, in 20 digits: `N.data`, the raw bytes of both
streams in order of arrival, and `N.index`, records of (offset, time, stream)
for every run of bytes of one stream. A run ends where the next record begins.

Within a segment times ascend; a clock that is set back begins a new one. Such an
index has ASCENDING for its first record, which is of no bytes. Those that earlier
versions wrote have none, and their times may go back.

A record is written before its bytes, so of several with the same offset only
the last counts. The index is allocated in whole blocks of zeros ahead of its
records, so that there is always room to note a loss when the disk is full:
what could not be recorded is a run of the stream GAP, a hole in the data file.

Every segment ends where the next begins, so the size of a data file tells how
far it reaches, whether it is still being written or not.
"""

import contextlib
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

# Global offset, nanoseconds since 1970, stream.
RECORD = struct.Struct("<QqQ")
GAP = 0
STDOUT = 1
STDERR = 2
# Of a record of no bytes.
ASCENDING = 3
# Where an engine records as the job's user, that user owns the files: no link of theirs
# leads elsewhere, and nothing that is no file is waited for.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# By how much the index grows at once.
INDEX_BLOCK = 170 * RECORD.size


class Record(NamedTuple):
    """The beginning of a run."""

    offset: int
    time_ns: int
    stream: int


def data_path(directory: Path, start: int) -> Path:
    """The data file of the segment whose first byte has this offset."""
    return directory / f"{start:020}.data"


def index_path(directory: Path, start: int) -> Path:
    """The index file of the segment whose first byte has this offset."""
    return directory / f"{start:020}.index"


def segment_starts(directory: Path) -> list[int]:
    """The offsets of the segments that are there, in order; empty without output."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 - the names are all it takes
    except FileNotFoundError:
        return []
    return sorted(int(name.partition(".")[0]) for name in names if name.endswith(".data"))


def recorded_end(directory: Path) -> int:
    """The offset after the last byte on record."""
    starts = segment_starts(directory)
    if not starts:
        return 0
    return starts[-1] + data_path(directory, starts[-1]).stat().st_size


class Index:
    """The records of one segment, read from an open file as they are needed.

    `first` is the slot of the first that is of a run: they are numbered from there.
    """

    def __init__(self, descriptor: int) -> None:
        """The descriptor stays the caller's."""
        self._descriptor = descriptor
        self.first = 0
        with contextlib.suppress(IndexError):
            self.first = int(self[0].stream == ASCENDING)

    def __getitem__(self, number: int) -> Record:
        data = self._read(number, RECORD.size)
        if len(data) < RECORD.size:
            raise IndexError(number)
        return Record(*RECORD.unpack(data))

    def _read(self, number: int, size: int) -> bytes:
        """Bytes from this record on."""
        return os.pread(self._descriptor, size, (self.first + number) * RECORD.size)

    def __len__(self) -> int:
        """How many records there are; more may be written any time."""
        slots = range(os.fstat(self._descriptor).st_size // RECORD.size - self.first)
        # Unused slots are zeros, and no time is zero.
        return bisect_left(slots, True, key=lambda slot: self[slot].time_ns == 0)

    def at(self, offset: int, near: int = 0) -> int:
        """The number of the record whose run holds the offset; -1 before the first.

        It is found the sooner the less it is after the record `near`.
        """
        low = near if self._begun(near, offset) else -1
        step = 1
        while self._begun(low + step, offset):
            low += step
            step *= 2
        later = range(low + 1, low + step)
        return low + bisect_left(later, True, key=lambda number: not self._begun(number, offset))

    def since(self, time_ns: int) -> int:
        """The number of the first record of this time or later; len() when there is none."""
        if self.first:
            return self._ascending_since(time_ns)
        later = (at for at, record in enumerate(self.onward(0)) if record.time_ns >= time_ns)
        return next(later, len(self))

    def until(self, time_ns: int) -> int:
        """The number after that of the last record before this time; 0 when there is none."""
        if self.first:
            return self._ascending_since(time_ns)
        count = len(self)
        before = (
            at for at, record in enumerate(self.backward(count - 1)) if record.time_ns < time_ns
        )
        return count - next(before, count)

    def _ascending_since(self, time_ns: int) -> int:
        return bisect_right(range(len(self)), time_ns - 1, key=lambda number: self[number].time_ns)

    def onward(self, number: int) -> Iterator[Record]:
        """The records from this number on."""
        while data := self._read(number, INDEX_BLOCK):
            for record in map(Record._make, RECORD.iter_unpack(_whole(data))):
                if not record.time_ns:
                    return
                yield record
            number += INDEX_BLOCK // RECORD.size

    def backward(self, number: int) -> Iterator[Record]:
        """The records from this number down to the first."""
        while number >= 0:
            first = max(0, number + 1 - INDEX_BLOCK // RECORD.size)
            size = (number + 1 - first) * RECORD.size
            data = self._read(first, size)
            yield from map(Record._make, reversed(list(RECORD.iter_unpack(_whole(data)))))
            number = first - 1

    def _begun(self, number: int, offset: int) -> bool:
        """Whether there is a record of this number, and its run begins at the offset or before."""
        try:
            record = self[number]
        except IndexError:
            return False
        return record.time_ns != 0 and record.offset <= offset


def _whole(data: bytes) -> bytes:
    """The records that are whole."""
    return data[: len(data) - len(data) % RECORD.size]


class Segment:
    """An open segment. Close it; it stays readable when its files are removed meanwhile."""

    def __init__(self, directory: Path, start: int) -> None:
        """Raises FileNotFoundError when it has been removed."""
        self.start = start
        self.data = os.open(data_path(directory, start), _READ)
        try:
            self._index = os.open(index_path(directory, start), _READ)
        except OSError:
            os.close(self.data)
            raise
        self.index = Index(self._index)

    @property
    def end(self) -> int:
        """The offset after its last byte so far."""
        return self.start + os.fstat(self.data).st_size

    def read(self, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes from the global offset on."""
        return os.pread(self.data, limit, offset - self.start)

    def close(self) -> None:
        """Close both files."""
        os.close(self.data)
        os.close(self._index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
