"""What people call jobs, on record: also in a journal of before, where nobody was asked."""

import contextlib
import sqlite3
from pathlib import Path

from uuid_utils import uuid7

from jobworker.supervisor.ipc.requests import List
from jobworker.supervisor.job import Entry, Job, Request, State, Waiting
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.journal.schema import SCHEMA_VERSION

ME = ("me", "team")


def as_before(path: Path, version: int) -> None:
    """Make a journal of the present schema one of an earlier version."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP INDEX job_name")
        database.execute("ALTER TABLE job DROP COLUMN name")
        database.execute("UPDATE job SET request = json_remove(request, '$.name')")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()


def request(name: str = "", queue: str = "") -> Request:
    return Request(str(uuid7()), *ME, ("true",), name=name, waiting=Waiting(queue))


def named(journal: Journal, name: str) -> list[Request]:
    asked = List("", "", 9, False, "", "", 0, (ME,), name=name)
    return [job.request for job in journal.page(asked)]


def test_jobs_of_before_have_no_name_and_those_of_now_are_found_by_it(tmp_path: Path) -> None:
    for version in (4, 5):
        path = tmp_path / f"{version}.sqlite"
        journal = Journal(path)
        before, waits = request(), request(queue="default")
        journal.insert(Job(before, 1, state=State.ENDED, ended_ns=2, output_complete=True))
        journal.insert(Job(waits, 1, state=State.PENDING))
        journal.close()
        as_before(path, version)
        journal = Journal(path)
        assert journal.find(before.id).request == before  # type: ignore[union-attr]
        assert [entry for entry, *_ in journal.waiting()] == [Entry(waits.id, *ME, "default")]
        new = request("nightly")
        journal.insert(Job(new, 1))
        assert named(journal, "nightly") == [new]
        assert named(journal, "weekly") == []
        journal.close()
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_one_that_waits_has_its_name_for_the_next_service(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    waits = request("nightly", "default")
    journal.insert(Job(waits, 1, state=State.PENDING))
    assert [entry.name for entry, *_ in journal.waiting()] == ["nightly"]
    journal.close()
