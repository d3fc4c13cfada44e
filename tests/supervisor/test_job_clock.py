"""The age of jobs does not depend on the wall clock, across restarts and boots either."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobworker.supervisor.job import Job, Request, State
from jobworker.supervisor.journal.job_clock import JobClock
from jobworker.supervisor.journal.journal import Journal

SECOND = 1_000_000_000
ID = "01a00000-0000-7000-8000-00000000000"


class Host:
    """A host's boot and what CLOCK_BOOTTIME shows."""

    def __init__(self) -> None:
        self.boot = "first"
        self.boottime_ns = 100 * SECOND

    def clock(self, database: sqlite3.Connection) -> JobClock:
        """The clock as a supervisor has it that has just begun."""
        return JobClock(database, lambda: self.boot, lambda: self.boottime_ns)


def job(number: int, **values: object) -> Job:
    return Job(Request(f"{ID}{number}", "alice", "team-a", ("true",)), time.time_ns(), **values)  # type: ignore[arg-type]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """That of a journal with jobs 1, which runs, and 2, which has ended."""
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path)) as journal:
        journal.insert(job(1))
        journal.insert(job(2, state=State.ENDED, ended_ns=time.time_ns(), output_complete=True))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DELETE FROM clock")
        database.execute("DELETE FROM job_clock")
        yield database


def test_it_goes_on_within_a_boot_and_stands_still_while_the_host_is_off(
    database: sqlite3.Connection,
) -> None:
    host = Host()
    clock = host.clock(database)
    begun = clock.now_ns()
    host.boottime_ns += 10 * SECOND
    assert host.clock(database).now_ns() == begun + 10 * SECOND
    host.boottime_ns += 5 * SECOND
    clock.created("later")
    host.boot, host.boottime_ns = "second", 1 * SECOND
    again = host.clock(database)
    assert again.now_ns() == begun + 15 * SECOND
    assert again.age_seconds("later") == 0
    host.boottime_ns += 7 * SECOND
    assert again.age_seconds("later") == 7
    assert again.created_within(8) == [("later", 7.0)]
    assert again.created_within(6) == []


def test_jobs_recorded_without_have_the_ages_that_the_wall_clock_told(
    database: sqlite3.Connection,
) -> None:
    database.execute("UPDATE job SET created_ns = created_ns - ?", (3600 * SECOND,))
    clock = Host().clock(database)
    assert 3600 <= clock.age_seconds(f"{ID}1") < 3660
    assert clock.age_seconds("nobody's") == 0


def test_what_ended_in_the_future_has_ended_just_now(database: sqlite3.Connection) -> None:
    database.execute("UPDATE job SET created_ns = created_ns + ?", (3600 * SECOND,))
    assert Host().clock(database).age_seconds(f"{ID}1") == 0


def test_a_removed_job_is_forgotten_here_too(database: sqlite3.Connection) -> None:
    Host().clock(database)
    database.execute("DELETE FROM job WHERE id = ?", (f"{ID}1",))
    assert database.execute("SELECT id FROM job_clock").fetchall() == [(f"{ID}2",)]


def test_the_first_to_end_goes_first_whatever_the_clock_said(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        now = time.time_ns()
        for number, ended_ns in enumerate((now + 400 * 86400 * SECOND, now)):
            journal.insert(job(number, state=State.ENDED, ended_ns=ended_ns, output_complete=True))
        ended = journal.ended()
        assert [one.id for one in ended] == [f"{ID}0", f"{ID}1"]
        assert abs(ended[1].ended_ns - journal.clock.now_ns()) < 3600 * SECOND
