"""Any order of writes, losses, full disks, crashes and reads: the record is what came, in order.

A recorder's crash is a system call after which it does nothing more; a full
disk is system calls that answer ENOSPC (tests/supervisor/output/test_full_disk.py has a real one).
"""

import contextlib
import errno
import os
import random
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobworker.supervisor.output import limbo as limbo_module
from jobworker.supervisor.output import recorder as recorder_module
from jobworker.supervisor.output.limbo import Limbo
from jobworker.supervisor.output.reader import Chunk, Gap, OutputReader
from jobworker.supervisor.output.recorder import Keep, Recorder
from jobworker.supervisor.output.segments import GAP, RECORD, STDERR, STDOUT
from tests.support.output_model import PRECISION_NS, Output

streams = st.sampled_from([STDOUT, STDERR])
any_stream = st.sampled_from([0, STDOUT, STDERR])
sizes = st.integers(1, 300)
# Small, so that a short run fills them.
SLOTS = 4
MILLISECOND = 1_000_000
HOUR = 3600 * 1000 * MILLISECOND


class Killed(BaseException):
    """The recorder's process is no more."""


class Faults:
    """The recorder's `os`, in a process that may be killed, on a disk that may be full."""

    def __init__(self) -> None:
        self.full = False
        # After so many more system calls it is dead; None for never.
        self.life: int | None = None
        self.moved = 0

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return self._call(name, real) if name in _CALLS else real

    def _call(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            if self.life == 0:
                raise Killed
            if self.full and _needs_room(name, arguments):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            result = real(*arguments, **keywords)
            if name == "splice":
                assert isinstance(result, int)
                self.moved = result
            if self.life is not None:
                self.life -= 1
                if self.life == 0:
                    _close_opened(name, result)
                    raise Killed
            return result

        return call


_CALLS = {"open", "posix_fallocate", "pwrite", "splice", "truncate", "ftruncate"}


def _needs_room(name: str, arguments: tuple[object, ...]) -> bool:
    if name == "open":
        return not Path(str(arguments[0])).exists()
    if name == "splice":
        return not os.readlink(f"/proc/self/fd/{arguments[1]}").startswith("/memfd:")
    return name == "posix_fallocate"


def _close_opened(name: str, result: object) -> None:
    if name == "open":
        assert isinstance(result, int)
        os.close(result)


class Recording(RuleBasedStateMachine):
    """Two pipes, a recorder that comes and goes, and readers of all kinds."""

    @initialize(
        segment=st.integers(16, 200),
        segments=st.just(0) | st.integers(8, 12),
        seed=st.integers(0, 2**32),
    )
    def begin(self, segment: int, segments: int, seed: int) -> None:
        self.exits = contextlib.ExitStack()
        place = self.exits.enter_context(tempfile.TemporaryDirectory())
        self.directory = Path(place) / "output"
        self.faults = Faults()
        for module in (recorder_module, limbo_module):
            self.exits.enter_context(mock.patch.object(module, "os", self.faults))
        block = SLOTS * RECORD.size
        self.exits.enter_context(mock.patch.object(recorder_module, "INDEX_BLOCK", block))
        self.keep = Keep(segment, segment * segments)
        self.random = random.Random(seed)
        self.now = 1_000_000_000 * MILLISECOND
        self.pipes: dict[int, tuple[int, int]] = {}
        for stream in (STDOUT, STDERR):
            self.pipes[stream] = ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            self.exits.callback(os.close, ours)
            self.exits.callback(os.close, theirs)
        self.in_memory = os.memfd_create("limbo", os.MFD_CLOEXEC)
        self.exits.callback(os.close, self.in_memory)
        self.pending = {STDOUT: b"", STDERR: b""}
        self.output = Output()
        self.recorder = Recorder(self.directory, self.keep, new=True)
        self.reader = OutputReader(self.directory)
        self.at = 0

    def teardown(self) -> None:
        if hasattr(self, "exits"):
            self.recorder.close()
            self.reader.close()
            self.exits.close()

    # -- what a job and its supervisor do -------------------------------------------

    @rule(stream=streams, size=sizes)
    def write(self, stream: int, size: int) -> None:
        data = bytes(self.random.choices(b"abcd\n", k=size))
        os.write(self.pipes[stream][1], data)
        self.pending[stream] += data

    @rule(stream=streams, limit=sizes)
    def record(self, stream: int, limit: int) -> None:
        self._move(stream, stream, limit, self._record)

    @rule(stream=streams, limit=sizes)
    def lose(self, stream: int, limit: int) -> None:
        self._move(stream, GAP, limit, self._lose)

    @rule(limit=sizes, times=st.integers(1, 20))
    def alternate(self, limit: int, times: int) -> None:
        """Both streams at once, a little of each in turn."""
        for _ in range(times):
            for stream in (STDOUT, STDERR):
                self._move(stream, stream, limit // 20 + 1, self._record)
            self.now += MILLISECOND

    def _record(self, stream: int, limit: int) -> int:
        return self.recorder.record(self.pipes[stream][0], stream, self.now, limit)

    def _lose(self, stream: int, limit: int) -> int:
        limbo = Limbo(self.in_memory)
        return self.recorder.lose(self.pipes[stream][0], limbo, self.now, limit)

    def _move(self, stream: int, kept_as: int, limit: int, move: Callable[[int, int], int]) -> None:
        pending = self.pending[stream]
        first = not self.output.end
        try:
            moved = move(stream, limit)
        except BlockingIOError:
            self.output.begin = self.recorder.begin
            assert not pending
            return
        except OSError as error:
            if error.errno != errno.ENOSPC or not self.faults.full:
                raise
            self.output.begin = self.recorder.begin
            assert first or kept_as != GAP, "a loss took room"
            return
        assert 0 < moved <= min(limit, len(pending))
        self._moved(stream, kept_as, moved)

    def _moved(self, stream: int, kept_as: int, moved: int) -> None:
        data, self.pending[stream] = self.pending[stream][:moved], self.pending[stream][moved:]
        self.output.add(data, kept_as, self.now)
        self.output.begin = self.recorder.begin

    @rule(milliseconds=st.integers(0, 30))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds * MILLISECOND

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.faults.full = full

    @rule(stream=streams, size=sizes, rounds=st.integers(1, 6), crashes=st.booleans())
    def outage(self, stream: int, size: int, rounds: int, crashes: bool) -> None:
        """The disk is full while more is written, of which all that cannot be kept is lost."""
        self.faults.full = True
        for _ in range(rounds):
            self.write(stream, size)
            self.record(stream, size)
            self.lose(stream, size)
            self.now += 10 * MILLISECOND
            if crashes:
                self._recover()
        self.faults.full = False

    @rule()
    def crash(self) -> None:
        self._recover()

    @rule(stream=streams, limit=sizes, life=st.integers(0, 8))
    def crash_while_recording(self, stream: int, limit: int, life: int) -> None:
        self._crash(stream, stream, limit, life, self._record)

    @rule(stream=streams, limit=sizes, life=st.integers(0, 14))
    def crash_while_losing(self, stream: int, limit: int, life: int) -> None:
        self._crash(stream, GAP, limit, life, self._lose)

    def _crash(
        self, stream: int, kept_as: int, limit: int, life: int, move: Callable[[int, int], int]
    ) -> None:
        self.faults.life, self.faults.moved = life, 0
        with contextlib.suppress(Killed, OSError):
            move(stream, limit)
        self.faults.life = None
        moved = self.faults.moved
        self._recover(check_end=False)
        self._moved(stream, kept_as, moved)

    @rule(stream=streams, size=sizes)
    def record_late(self, stream: int, size: int) -> None:
        """Time passes while the bytes are moved."""
        self.write(stream, size)
        before = self.output.end
        self.record(stream, size)
        self.now += 10 * MILLISECOND
        if moved := self.output.end - before:
            self.recorder.redate(moved, stream, self.now)
            if not self.faults.full:
                self.output.times[before:] = array("q", [self.now] * moved)

    def _recover(self, *, check_end: bool = True) -> None:
        end, begin = self.recorder.end, self.recorder.begin
        self.recorder.close()
        Limbo.left_by(self.in_memory)
        self.recorder = Recorder(self.directory, self.keep)
        assert not check_end or (self.recorder.begin, self.recorder.end) == (begin, end)

    # -- what readers see ------------------------------------------------------------

    @rule(limit=sizes, by_run=st.booleans())
    def follow(self, limit: int, by_run: bool) -> None:
        """A piece more, by a reader that keeps its place and its segment."""
        if self.at < self.output.end:
            piece = self.reader.read(self.at, self.output.end, limit, by_run=by_run)
            assert piece is not None
            assert piece.offset == self.at
            assert isinstance(piece, Gap) or len(piece.data) <= limit
            self.at = self.output.check(piece)

    @rule()
    def reader_crashes(self) -> None:
        self.reader.close()
        self.reader = OutputReader(self.directory)

    @rule(data=st.data(), limit=sizes, by=st.sampled_from(["", "run", "stream"]), stream=any_stream)
    def read_on(self, data: st.DataObject, limit: int, by: str, stream: int) -> None:
        offset = data.draw(st.integers(0, self.output.end))
        pieces = self._pieces(offset, limit, by, stream)
        self.output.check_all(pieces, offset, stream, one_time=by != "stream")
        if by == "stream" and not stream:
            assert all(piece.stream for piece in pieces if isinstance(piece, Chunk))

    def _pieces(self, offset: int, limit: int, by: str, stream: int) -> list[Chunk | Gap]:
        pieces: list[Chunk | Gap] = []
        end = self.output.end
        with OutputReader(self.directory) as reader:
            while offset < end:
                while stream and (at := reader.skip(offset, end, stream)) != offset:
                    offset = at
                piece = reader.read(
                    offset,
                    end,
                    limit,
                    stream=stream,
                    by_run=by == "run",
                    by_stream=by == "stream",
                )
                if piece is None:
                    break
                pieces.append(piece)
                offset = self.output.check(piece, one_time=by != "stream")
        return pieces

    @rule(count=st.integers(0, 400), stream=any_stream)
    def tail_bytes(self, count: int, stream: int) -> None:
        with OutputReader(self.directory) as reader:
            offset = reader.offset_of_tail_bytes(count, self.output.end, stream)
        kept = self.output.kept(stream)
        assert self.output.kept(stream, offset) == kept[max(0, len(kept) - count) :]

    @rule(count=st.integers(0, 40), stream=any_stream)
    def tail_lines(self, count: int, stream: int) -> None:
        with OutputReader(self.directory) as reader:
            offset = reader.offset_of_tail_lines(count, self.output.end, stream)
        lines = self.output.kept(stream).splitlines(keepends=True)
        assert self.output.kept(stream, offset) == b"".join(lines[max(0, len(lines) - count) :])

    @rule(data=st.data())
    def since_and_until(self, data: st.DataObject) -> None:
        moment = data.draw(st.integers(1_000_000_000 * MILLISECOND - 1, self.now + 1))
        with OutputReader(self.directory) as reader:
            since = reader.offset_since(moment, self.output.end)
            until = reader.offset_until(moment, self.output.end)
        assert since <= until
        assert set(self.output.streams[max(since, self.output.begin) : until]) <= {GAP}
        kept_before = [
            self.output.times[at]
            for at in range(self.output.begin, until)
            if self.output.streams[at] != GAP
        ]
        after = self.output.times[until:]
        assert not kept_before or max(kept_before) < moment + PRECISION_NS
        assert not after or min(after) >= moment

    @invariant()
    def no_more_is_kept_than_asked_for(self) -> None:
        if hasattr(self, "keep") and self.keep.rotate:
            output = self.output
            kept = sum(stream != GAP for stream in output.streams[output.begin :])
            assert kept <= self.keep.rotate


Recording.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRecording = Recording.TestCase


def test_a_clock_that_is_set_back_is_believed(tmp_path: Path) -> None:
    """Else what comes while it catches up would all have the time from before."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    recorder = Recorder(tmp_path / "output", Keep(1024), new=True)
    for now in (HOUR, 10 * MILLISECOND, 20 * MILLISECOND):
        os.write(theirs, b"x")
        recorder.record(ours, STDOUT, now, 1)
    recorder.close()
    with OutputReader(tmp_path / "output") as reader:
        pieces = [reader.read(at, 3, 1, by_run=True) for at in range(3)]
    assert [piece.time_ns for piece in pieces if isinstance(piece, Chunk)] == [
        HOUR,
        10 * MILLISECOND,
        20 * MILLISECOND,
    ]
    os.close(ours)
    os.close(theirs)


def test_since_and_until_find_their_bytes_where_the_clock_was_set_back(tmp_path: Path) -> None:
    """Times that do not ascend were bisected, so `--since` began anywhere."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    minute = 60_000 * MILLISECOND
    recorder = Recorder(tmp_path / "output", Keep(1024), new=True)
    # Set back by an hour and more, also while no supervisor looks on.
    for number, at in enumerate((100, 101, 102, 30, 31, 32, 33, 20, 21, 105)):
        os.write(theirs, b"x")
        recorder.record(ours, STDOUT, at * minute, 1)
        if number == 6:
            recorder.close()
            recorder = Recorder(tmp_path / "output", Keep(1024))
    recorder.close()
    with OutputReader(tmp_path / "output") as reader:
        assert [reader.offset_since(at * minute, 10) for at in (10, 32, 101, 103, 106)] == [
            *(0, 0, 1, 9, 10)
        ]
        assert [reader.offset_until(at * minute, 10) for at in (10, 21, 32, 101, 106)] == [
            *(0, 8, 9, 9, 10)
        ]
    os.close(ours)
    os.close(theirs)
