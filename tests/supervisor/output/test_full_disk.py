"""A full disk: jobs and service live on, the loss is a gap, and recording goes on afterwards."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.supervisor import Chunk, Exhausted, Gap, JobWorker, StateError
from jobworker.supervisor.journal.journal import Journal
from tests.support.file_systems import free, small_file_system
from tests.support.library import Site
from tests.support.waiting import until

MIB = 1024 * 1024
# Writes numbered blocks of 4 KiB, so many before the gate opens and so many after.
WRITER = """
import os, sys, time
before, after, gate = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def write(first, last):
    for number in range(first, last):
        block = number.to_bytes(8, "little") * 512
        while block:
            block = block[os.write(1, block):]
write(0, before)
while not os.path.exists(gate):
    time.sleep(0.01)
write(before, before + after)
"""
BLOCK = PAGE = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 24 MiB."""
    with small_file_system(tmp_path / "disk", "24m") as place:
        yield place


def test_the_loss_is_a_gap(small_disk: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(12 * MIB))
    before, after = 24 * MIB // BLOCK, 2 * MIB // BLOCK
    with JobWorker(small_disk / "state") as worker:
        writer = [sys.executable, "-c", WRITER, str(before), str(after), str(gate)]
        job = worker.start(writer)
        until(lambda: job.status().output_end >= 22 * MIB)
        assert not job.status().ended, "the job did not outlive the full disk"
        ballast.unlink()
        gate.touch()
        assert job.wait().exit_code == 0
        pieces = list(job.output())
        end = (before + after) * BLOCK
        assert job.status().output_end == end
    gaps = [piece for piece in pieces if isinstance(piece, Gap)]
    assert gaps
    at = 0
    for piece in pieces:
        assert piece.offset == at
        at += piece.length if isinstance(piece, Gap) else len(piece.data)
        if isinstance(piece, Chunk):
            _check(piece)
    assert at == end
    assert isinstance(pieces[-1], Chunk), "recording did not go on"


def test_a_loss_is_as_long_as_it_was_through_deaths(small_disk: Path, tmp_path: Path) -> None:
    """What went to /dev/null when the supervisor died was missing from the gap."""
    size, gate = 512 * MIB, tmp_path / "gate"
    site = Site(small_disk / "state", "off")
    script = f"echo; until [ -e {gate} ]; do sleep 0.01; done; exec head -c {size} /dev/zero"
    with site.worker() as worker:
        job = worker.start(["sh", "-c", script])
        next(job.output())
        _fill(small_disk / "ballast")
        gate.touch()
        for number in range(1, 4):
            until(lambda reached=number: job.status().output_end > reached * size // 4)
            site.signal_supervisor()
        (small_disk / "ballast").unlink()
        assert job.wait().exit_code == 0
        pieces = list(job.output())
        lost = next(number for number, piece in enumerate(pieces) if isinstance(piece, Gap))
        # The page that the first byte is on may have taken some more.
        kept = [len(piece.data) for piece in pieces[:lost] if isinstance(piece, Chunk)]
        assert 1 <= sum(kept) <= PAGE
        assert job.status().output_end == 1 + size


def test_a_journal_is_opened_on_a_full_disk_while_there_is_room_ahead(small_disk: Path) -> None:
    """It was said to be none, and to be moved away."""
    Journal(small_disk / "journal.sqlite").close()
    _fill(small_disk / "others")
    Journal(small_disk / "journal.sqlite").close()
    (small_disk / "ballast").unlink()
    _fill(small_disk / "more of others")
    with pytest.raises(StateError, match="is its disk full"):
        Journal(small_disk / "journal.sqlite")


def test_a_journal_that_a_death_left_open_is_opened_with_no_room_at_all(small_disk: Path) -> None:
    """Jobs that ran then had no supervisor for as long as the disk was full."""
    journal = small_disk / "journal.sqlite"
    script = "import os, sys, jobworker.supervisor.journal.journal as j, pathlib;"
    script += "j.Journal(pathlib.Path(sys.argv[1])).make_room(); os._exit(7)"
    assert subprocess.run([sys.executable, "-c", script, journal], check=False).returncode == 7
    _fill(small_disk / "others")
    Journal(journal).close()


def test_a_start_that_cannot_be_recorded_is_refused(small_disk: Path) -> None:
    with JobWorker(small_disk / "state") as worker:
        running = worker.start(["sleep", "1000"])
        _fill(small_disk / "ballast")
        with pytest.raises(Exhausted, match="is the disk full"):
            _start_many(worker)
        assert not running.status().ended
        (small_disk / "ballast").unlink()
        worker.start(["true"])
        assert running.stop().signal == 15


def _start_many(worker: JobWorker) -> None:
    """More than the journal has room for without growing."""
    for _ in range(1000):
        worker.start(["true"])


def _check(chunk: Chunk) -> None:
    """Every byte is the one that was written at its offset."""
    first = chunk.offset // BLOCK
    last = (chunk.offset + len(chunk.data) - 1) // BLOCK
    whole = b"".join(number.to_bytes(8, "little") * 512 for number in range(first, last + 1))
    begin = chunk.offset - first * BLOCK
    assert chunk.data == whole[begin : begin + len(chunk.data)]


def _fill(path: Path) -> None:
    """Leave no room for another byte."""
    # What the service writes meanwhile takes some of it.
    with contextlib.suppress(OSError):
        path.write_bytes(bytes(free(path.parent)))
    assert free(path.parent) == 0


def test_the_service_can_end_on_a_full_disk(small_disk: Path) -> None:
    with JobWorker(small_disk / "state", stop_seconds=1.0) as worker:
        worker.start(["sleep", "1000"])
        _fill(small_disk / "ballast")
