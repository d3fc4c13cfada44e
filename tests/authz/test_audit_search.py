"""Searching the audit log: what is found, in which order, and what it costs."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.authz.audit.files import AuditBroken, file_name, files_of, last_lines, lines_of
from jobworker.authz.audit.log import AuditLog
from jobworker.authz.audit.record import Carried, Changed, Event, Recovered
from jobworker.authz.audit.search import Wanted, search
from tests.authz.test_audit import decision

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS: tuple[Event, ...] = (
    decision("alice", "start", "/bin/ls", "-l"),
    decision("bob", "stop"),
    Changed(job="j1-abcd", owner="alice", tenant="c", state="ended", detail="exit code 3"),
    Carried(
        cn="bob",
        serial="1",
        peer="10.0.0.9:1",
        action="forward",
        job="j1-abcd",
        owner="alice",
        tenant="c",
        target="port 80",
        up=1,
        down=2,
        seconds=0.5,
    ),
    Recovered(dropped_bytes=7),
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """EVENTS ten times, a day apart, in several files."""
    days = count()
    path = tmp_path / "audit"
    clock = lambda: BEGIN + timedelta(days=next(days))  # noqa: E731 - it is said where it is used
    log = AuditLog(path, max_file_bytes=1500, clock=clock)
    for _ in range(10):
        for event in EVENTS:
            log.append(event)
    log.close()
    assert len(files_of(path)) > 5
    return path


def found(directory: Path, wanted: Wanted, limit: int = 0) -> list[int]:
    """The numbers of the records that are found; nothing is damaged."""
    lines = search(directory, wanted, limit, pytest.fail)
    return [line.record.number for line in lines]


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (Wanted(), {1, 2, 3, 4, 5}),
        (Wanted(user="bob"), {2, 4}),
        (Wanted(owner="alice"), {1, 3, 4}),
        (Wanted(tenant="c"), {3, 4}),
        (Wanted(tenant="a"), {1, 2}),
        (Wanted(job="j1-abcd"), {3, 4}),
        (Wanted(job="abcd"), {3, 4}),
        (Wanted(job="j1"), {3, 4}),
        (Wanted(job="1-abc"), set()),
        (Wanted(actions=("stop", "forward")), {2, 4}),
        (Wanted(allowed=True), {1}),
        (Wanted(allowed=False), {2}),
        (Wanted(text="/BIN/LS -l"), {1}),
        (Wanted(text="exit CODE"), {3}),
        (Wanted(text="Port 80"), {4}),
        (Wanted(text="10.0.0.9"), {4}),
        (Wanted(user="bob", actions=("stop",), allowed=False, owner="bob"), {2}),
        (Wanted(user="ali"), set()),
        (Wanted(user="\udcff"), set()),
    ],
)
def test_what_is_found(directory: Path, wanted: Wanted, places: set[int]) -> None:
    expected = [n for n in range(1, 51) if (n - 1) % 5 + 1 in places]
    assert found(directory, wanted) == expected


def test_times_are_from_and_before(directory: Path) -> None:
    day = lambda n: BEGIN + timedelta(days=n - 1)  # noqa: E731
    assert found(directory, Wanted(since=day(20), until=day(23))) == [20, 21, 22]
    assert found(directory, Wanted(since=day(49))) == [49, 50]
    assert found(directory, Wanted(until=day(3))) == [1, 2]
    assert found(directory, Wanted(since=day(60))) == []


def test_files_of_another_time_are_not_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(
        "jobworker.authz.audit.search._Finding.in_file", lambda _self, file: read.append(file) or ()
    )
    assert found(directory, Wanted(since=BEGIN + timedelta(days=45))) == []
    assert 0 < len(read) < 5
    assert read[-1] == files_of(directory)[-1]


@given(limit=st.integers(0, 60), user=st.sampled_from(["", "bob", "nobody"]))
def test_the_last_so_many_are_the_end_of_all(
    tmp_path_factory: pytest.TempPathFactory, limit: int, user: str
) -> None:
    directory = tmp_path_factory.getbasetemp() / "searched"
    if not directory.exists():
        log = AuditLog(directory, max_file_bytes=1500)
        for _ in range(10):
            for event in EVENTS:
                log.append(event)
        log.close()
    every = found(directory, Wanted(user=user))
    assert found(directory, Wanted(user=user), limit) == (every[-limit:] if limit else every)


def test_a_damaged_line_is_told_of_and_the_others_are_found(directory: Path) -> None:
    file = files_of(directory)[2]
    lines = file.read_bytes().splitlines(keepends=True)
    numbers = [line.record.number for line in lines_of(file)]
    file.write_bytes(b"".join([lines[0], b"nonsense\n", *lines[2:]]))
    damaged: list[AuditBroken] = []
    left = [line.record.number for line in search(directory, Wanted(), 0, damaged.append)]
    assert left == [n for n in range(1, 51) if n != numbers[1]]
    assert [str(error).startswith(f"{file}:2: ") for error in damaged] == [True]


def test_a_file_that_is_removed_meanwhile_is_left_out(directory: Path) -> None:
    lines = search(directory, Wanted(), 0, pytest.fail)
    assert next(lines).record.number == 1
    second, third = files_of(directory)[1:3]
    second.unlink()
    rest = [line.record.number for line in lines]
    first_of_third = next(lines_of(third)).record.number
    assert first_of_third in rest
    assert not set(range(int(second.stem.removeprefix("audit-")), first_of_third)) & set(rest)


def test_a_log_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    """Lines are read one by one, and of those that are found the last are kept."""
    log = AuditLog(tmp_path / "audit")
    log.append(decision("alice"))
    log.close()
    (line,) = last_lines(tmp_path / "audit", 1)
    (tmp_path / "audit" / file_name(1)).write_bytes((line.text + b"\n") * 40_000)
    tracemalloc.start()
    try:
        for limit in (0, 10):
            for _ in search(tmp_path / "audit", Wanted(user="alice"), limit, pytest.fail):
                pass
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
