"""Where output of a time is: in indexes whose times ascend, and in those of earlier versions."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.output.reader import OutputReader
from jobworker.supervisor.output.recorder import Keep, Recorder
from jobworker.supervisor.output.segments import RECORD, STDOUT, Segment, data_path, index_path

times = st.lists(st.integers(1, 12), min_size=1, max_size=12)
MANY = 4000
SECOND = 10**9


def write_as_before(directory: Path, segments: list[list[int]]) -> None:
    """Segments as versions before wrote them: a byte for each of the times, in this order."""
    start = 0
    for found in segments:
        records = [RECORD.pack(start + at, time, STDOUT) for at, time in enumerate(found)]
        # Room is taken ahead.
        index_path(directory, start).write_bytes(b"".join(records) + bytes(5 * RECORD.size))
        data_path(directory, start).write_bytes(b"x" * len(found))
        start += len(found)


@given(segments=st.lists(times, min_size=1, max_size=3), moment=st.integers(0, 14))
def test_times_of_earlier_versions_may_go_back(segments: list[list[int]], moment: int) -> None:
    """A clock that was set back within a segment: `--since` and `--until` took any offset."""
    every = [time for found in segments for time in found]
    end = len(every)
    with tempfile.TemporaryDirectory() as name:
        write_as_before(Path(name), segments)
        with OutputReader(Path(name)) as reader:
            later = [at for at, time in enumerate(every) if time >= moment]
            assert reader.offset_since(moment, end) == min(later, default=end)
            before = [at for at, time in enumerate(every) if time < moment]
            assert reader.offset_until(moment, end) == max(before, default=-1) + 1


def test_a_recorder_goes_on_with_an_index_of_before(tmp_path: Path) -> None:
    write_as_before(tmp_path, [[100 * SECOND, 30 * SECOND, 50 * SECOND]])
    _record(tmp_path, [60, 40, 70])
    with OutputReader(tmp_path) as reader:
        found = [reader.offset_since(at * SECOND, 6) for at in (35, 65, 101)]
        assert found == [0, 0, 6]
        assert [reader.offset_until(at * SECOND, 6) for at in (35, 45, 65)] == [2, 5, 5]
        assert [reader.read(at, 6, 10, by_run=True) for at in range(6)] == [
            (at, b"x", time * SECOND, STDOUT) for at, time in enumerate((100, 30, 50, 60, 40, 70))
        ]


def test_times_that_ascend_are_not_all_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _record(tmp_path, list(range(1, MANY)))
    real, reads = os.pread, 0

    def pread(*arguments: int) -> bytes:
        nonlocal reads
        reads += arguments[1] // RECORD.size
        return real(*arguments)

    with Segment(tmp_path, 0) as segment:
        monkeypatch.setattr(os, "pread", pread)
        assert segment.index.since(1000 * SECOND) == segment.index.until(1000 * SECOND) == 999
    # Twice twelve to find how many there are, and twice twelve to find the time.
    assert reads < 100


def _record(directory: Path, moments: list[int]) -> None:
    """Have a byte recorded at each of these seconds."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    recorder = Recorder(directory, Keep(1 << 20))
    for moment in moments:
        os.write(theirs, b"x")
        assert recorder.record(ours, STDOUT, moment * SECOND, 1) == 1
    recorder.close()
    os.close(ours)
    os.close(theirs)
