"""Segments that somebody cuts short, and deaths in the middle of a loss: gaps, exactly as long."""

import errno
import fcntl
import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.output import recorder as recording
from jobworker.supervisor.output.limbo import Limbo
from jobworker.supervisor.output.reader import Gap, OutputReader
from jobworker.supervisor.output.recorder import Keep, Recorder
from jobworker.supervisor.output.segments import STDOUT, data_path, index_path, recorded_end
from tests.supervisor.output.test_output_limits import STOP_RECORDING, has_written, messages
from tests.support.chaos import kill
from tests.support.client import calling, start, wait
from tests.support.file_systems import free, small_file_system
from tests.support.server import Server
from tests.support.waiting import until

KEEP = Keep(1024 * 1024)
BLOCK = 4096
# By which a loss is made and noted.
LOSING = ("pwrite", "splice", "truncate", "ftruncate")


class Job:
    """A pipe, and a recorder of what comes out of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)
        self.in_memory = os.memfd_create("limbo", os.MFD_CLOEXEC)
        self.limbo = Limbo(self.in_memory)
        self.recorder = Recorder(directory, KEEP)

    def record(self, data: bytes) -> None:
        os.write(self.write, data)
        assert self.recorder.record(self.read, STDOUT, time.time_ns(), 1 << 20) == len(data)

    def lose(self, data: bytes) -> None:
        os.write(self.write, data)
        assert self.recorder.lose(self.read, self.limbo, time.time_ns(), 1 << 20) == len(data)

    def again(self) -> None:
        """Another recorder goes on, as after the death of the one before."""
        self.recorder.close()
        self.recorder = Recorder(self.directory, KEEP)

    def pieces(self) -> list[tuple[int, bytes | int]]:
        """What a reader finds: (offset, bytes, or the length of a gap)."""
        found: list[tuple[int, bytes | int]] = []
        at = 0
        with OutputReader(self.directory) as reader:
            while piece := reader.read(at, self.recorder.end, 1 << 20):
                what = piece.length if isinstance(piece, Gap) else piece.data
                found.append((piece.offset, what))
                at += piece.length if isinstance(piece, Gap) else len(piece.data)
        return found

    def close(self) -> None:
        self.recorder.close()
        for descriptor in (self.read, self.write, self.in_memory):
            os.close(descriptor)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    one = Job(tmp_path / "output")
    yield one
    one.close()


def test_a_segment_cut_short_under_a_running_job_is_a_gap(job: Job) -> None:
    """Later readers read what was cut away as NULs."""
    job.record(b"a" * 1000)
    os.truncate(data_path(job.directory, 0), 300)
    job.record(b"b" * 500)
    assert job.pieces() == [(0, b"a" * 300), (300, 700), (1000, b"b" * 500)]
    job.again()
    job.record(b"c")
    assert job.pieces()[-1] == (1000, b"b" * 500 + b"c")


def test_a_loss_after_the_cut_is_a_gap_as_well(job: Job) -> None:
    job.record(b"a" * 1000)
    os.truncate(data_path(job.directory, 0), 300)
    job.lose(b"x" * 50)
    job.record(b"b" * 500)
    assert job.pieces() == [(0, b"a" * 300), (300, 700), (1000, 50), (1050, b"b" * 500)]


def test_an_index_cut_short_leaves_what_follows_whole(job: Job) -> None:
    job.record(b"a" * 1000)
    os.truncate(index_path(job.directory, 0), 10)
    job.record(b"b" * 500)
    assert job.pieces() == [(0, 1000), (1000, b"b" * 500)]


def test_a_death_while_output_is_lost_leaves_the_gap_as_long(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between discarding output and noting it, a death left a gap too short."""
    job.record(b"a" * 1000)

    class Death(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Death

    with monkeypatch.context() as patched:
        # The first thing that is done once the bytes have left the pipe.
        patched.setattr(recording, "punch", dies)
        with pytest.raises(Death):
            job.lose(b"x" * 8192)
    job.again()
    assert job.recorder.end == 9192
    job.lose(b"y" * 8192)
    job.record(b"b")
    assert job.pieces() == [(0, b"a" * 1000), (1000, 16384), (17384, b"b")]


def test_a_gap_takes_no_room(job: Job) -> None:
    job.record(b"a" * 1000)
    for _ in range(100):
        job.lose(b"x" * 65536)
    assert data_path(job.directory, 0).stat().st_blocks * 512 <= 64 * 1024
    assert job.pieces() == [(0, b"a" * 1000), (1000, 100 * 65536)]


def test_where_there_are_no_holes_the_loss_goes_elsewhere(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(recording, "punch", unsupported)
    for _ in range(100):
        job.lose(b"x" * 65536)
    job.record(b"b")
    assert data_path(job.directory, 0).stat().st_blocks * 512 <= 128 * 1024
    assert job.pieces() == [(0, 100 * 65536), (100 * 65536, b"b")]


@pytest.fixture
def job_on_a_full_disk(tmp_path: Path) -> Iterator[Job]:
    with small_file_system(tmp_path / "disk", "1m") as place:
        one = Job(place / "output")
        one.record(b"a" * BLOCK)
        (place / "ballast").write_bytes(bytes(free(place)))
        yield one
        one.close()


def test_a_death_on_a_full_disk_leaves_the_gap_as_long(job_on_a_full_disk: Job) -> None:
    """The loss went to /dev/null: a death before it was noted left a gap too short."""
    job = job_on_a_full_disk
    lost, calls, status = 0, 0, -signal.SIGKILL
    while status:
        os.write(job.write, b"x" * BLOCK)
        status = os.waitstatus_to_exitcode(_loses_until_it_dies(job, calls))
        assert status in (0, -signal.SIGKILL)
        calls += 1
        Limbo.left_by(job.in_memory)
        lost = calls * BLOCK - _in_pipe(job.read)
        assert recorded_end(job.directory) == BLOCK + lost, f"died after {calls} system calls"
    assert calls > len(LOSING)
    assert lost == calls * BLOCK
    job.again()
    (job.directory.parent / "ballast").unlink()
    job.record(b"b")
    assert job.pieces() == [(0, b"a" * BLOCK), (BLOCK, lost), (BLOCK + lost, b"b")]


def _loses_until_it_dies(job: Job, calls: int) -> int:
    """Have another process lose what is in the pipe; its wait status.

    After so many of the system calls by which it does that it is no more.
    """
    pid = os.fork()
    if pid == 0:
        try:
            left = count(-calls)
            for name in LOSING:
                setattr(os, name, _deadly(getattr(os, name), left))
            recorder = Recorder(job.directory, KEEP)
            recorder.lose(job.read, job.limbo, time.time_ns(), 1 << 20)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def _deadly(call: Callable[..., object], left: "count[int]") -> Callable[..., object]:
    def called(*arguments: Any, **named: Any) -> object:
        if not next(left):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    return called


def _in_pipe(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_loss_for_which_a_file_has_no_room_stays_in_the_pipe(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file system without holes that is full: it was lost, and not told."""
    job.record(b"a" * 1000)
    real = os.truncate

    def full(path: str, size: int) -> None:
        if size > job.recorder.end:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, size)

    monkeypatch.setattr(job.recorder, "_holes", False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "truncate", full)
        with pytest.raises(OSError, match="No space"):
            job.lose(b"x" * 50)
    assert (_in_pipe(job.read), recorded_end(job.directory)) == (50, 1000)
    assert job.recorder.lose(job.read, job.limbo, time.time_ns(), 1 << 20) == 50
    assert recorded_end(job.directory) == 1050


def test_offsets_stay_true_through_kills_while_output_is_lost(fresh_server: Server) -> None:
    size = 256 * 1024 * 1024
    with calling(fresh_server, "alice") as worker:
        limit = pb.OutputLimit(bytes=65536, overflow=STOP_RECORDING)
        job_id = start(worker, "head", "-c", str(size), "/dev/zero", outputLimit=limit)
        for number in range(1, 8):
            until(lambda reached=number: has_written(worker, job_id, reached * size // 8))
            kill(fresh_server, "supervisor")
        assert wait(worker, job_id).outputBytes == size
        found = messages(worker, job_id)
    assert sum(message.gapBytes for message in found) == size - 65536
