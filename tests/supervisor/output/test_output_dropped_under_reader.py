"""A reader that holds a segment open while a rotation drops what follows it."""

import os
from pathlib import Path

from jobworker.supervisor.output.reader import Chunk, Gap, OutputReader
from jobworker.supervisor.output.recorder import Keep, Recorder
from jobworker.supervisor.output.segments import STDOUT

SEGMENT = 4096
KEEP = Keep(SEGMENT, 8 * SEGMENT)


def write(recorder: Recorder, count: int) -> None:
    """Write so many segments, each in one piece."""
    for _ in range(count):
        ours, theirs = os.pipe()
        os.write(theirs, os.urandom(SEGMENT))
        recorder.record(ours, STDOUT, 1, SEGMENT)
        os.close(ours)
        os.close(theirs)


def test_what_was_dropped_after_the_open_segment_is_a_gap(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "output", KEEP, new=True)
    reader = OutputReader(tmp_path / "output")
    write(recorder, 1)
    first = reader.read(0, SEGMENT, SEGMENT)
    assert isinstance(first, Chunk)
    assert len(first.data) == SEGMENT

    write(recorder, 20)
    gap = reader.read(SEGMENT, recorder.end, SEGMENT)
    assert gap == Gap(SEGMENT, recorder.begin - SEGMENT)
    at, kept = recorder.begin, b""
    while at < recorder.end:
        piece = reader.read(at, recorder.end, SEGMENT)
        assert isinstance(piece, Chunk)
        assert piece.data
        at += len(piece.data)
        kept += piece.data
    assert len(kept) == recorder.end - recorder.begin
    reader.close()
    recorder.close()
