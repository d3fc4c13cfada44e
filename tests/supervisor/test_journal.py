"""The record of jobs: what it takes for its own, what it refuses, and when a change is in it."""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor import Reason, State, StateError, SupervisorUnavailable
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.limits import Limits
from jobworker.supervisor.host.users import Account
from jobworker.supervisor.job import Job, OutputLimit, Overflow, Request
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.journal.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from jobworker.supervisor.local.local_job import Whereabouts
from tests.support.library import Site, eventually

# -- what it is given, it gives back ---------------------------------------------------------

# What JSON and SQLite can hold: no half of a surrogate pair, and no NUL in an argument.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
counts = st.integers(0, 2**63 - 1)
requests = st.builds(
    Request,
    id=st.builds(lambda: str(uuid_utils.uuid7())),
    owner=texts,
    tenant=texts,
    argv=st.lists(texts, min_size=1, max_size=5).map(tuple),
    environment=st.dictionaries(texts, texts, max_size=5),
    cwd=texts,
    grace=st.floats(0, 86400),
    output_limit=st.builds(OutputLimit, counts, st.sampled_from(Overflow), counts),
    limits=st.builds(Limits, memory=st.just(0) | st.integers(2**22, 2**62), cpus=st.just(0.5)),
    account=st.none() | st.builds(Account, texts, st.just(1), st.just(2), st.just((3, 4)), texts),
    profile=st.sampled_from(Profile),
    network=st.booleans(),
)
jobs = st.builds(
    Job,
    requests,
    counts,
    state=st.sampled_from(State),
    reason=st.sampled_from(Reason),
    pid=counts,
    engine_record=texts,
    exit_status=st.integers(0, 255),
    signal=st.integers(0, 64),
    ended_ns=counts,
    # Sums over jobs are in 64 bits, too.
    output_begin=st.integers(0, 2**50),
    output_end=st.integers(2**50, 2**55),
    output_complete=st.booleans(),
    detail=texts,
    usage=st.builds(Usage, st.none() | st.floats(0, 1e9), st.none(), st.none() | counts),
)


@given(st.lists(jobs, min_size=1, max_size=5, unique_by=lambda job: job.id), st.data())
def test_jobs_come_back_as_they_were_recorded(
    tmp_path_factory: pytest.TempPathFactory, given_jobs: list[Job], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    expected = {}
    journal = Journal(path)
    for job in given_jobs:
        journal.insert(job)
        # Only what may change of a job does.
        later = replace(data.draw(jobs), request=job.request, created_ns=job.created_ns)
        expected[job.id] = data.draw(st.sampled_from([job, later]))
        journal.update(expected[job.id])
    journal.close()
    journal = Journal(path)
    assert {job_id: journal.find(job_id) for job_id in expected} == expected
    unfinished = {
        job.id
        for job in expected.values()
        if job.state is not State.ENDED or not job.output_complete
    }
    waiting = {job.id for job in expected.values() if job.state is State.PENDING}
    assert {entry.id for entry, *_ in journal.waiting()} == waiting
    assert {job.id for job in journal.unfinished()} == unfinished - waiting
    assert {job.id for job in journal.ended()} == set(expected) - unfinished
    journal.close()


# -- what it refuses -------------------------------------------------------------------------


def own(path: Path, count: int = 200) -> None:
    """A journal with so many jobs."""
    journal = Journal(path)
    for _ in range(count):
        request = Request(str(uuid_utils.uuid7()), "me", "", ("true", "x" * 500))
        journal.insert(Job(request, 1, state=State.ENDED, ended_ns=2, output_complete=True))
    journal.close()


def execute(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def left_by_a_crash(path: Path, *statements: str) -> None:
    """Execute, and leave the file and its -wal as a program would that was killed thereafter."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for statement in statements:
            database.execute(statement)
        copies = [path.with_name(f"{path.name}{end}") for end in ("", "-wal")]
        for file in copies:
            shutil.copy(file, f"{file}.aside")
    for file in copies:
        Path(f"{file}.aside").rename(file)


def rubbish(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 1000)


def a_header_and_rubbish(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"x" * 8176)


def a_torn_page(path: Path) -> None:
    own(path)
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)


def cut_short(path: Path) -> None:
    own(path)
    os.truncate(path, path.stat().st_size // 2)


def foreign(path: Path) -> None:
    execute(path, "CREATE TABLE note (text TEXT)", "INSERT INTO note VALUES ('mine')")


def foreign_and_killed(path: Path) -> None:
    left_by_a_crash(path, "CREATE TABLE note (text TEXT)", "INSERT INTO note VALUES ('mine')")


def newer(path: Path) -> None:
    own(path)
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def newer_and_killed(path: Path) -> None:
    own(path)
    left_by_a_crash(
        path,
        "ALTER TABLE job ADD COLUMN more TEXT",
        f"PRAGMA user_version = {SCHEMA_VERSION + 1}",
        "UPDATE job SET more = 'of the future'",
    )


def of_no_version(path: Path) -> None:
    own(path)
    execute(path, "PRAGMA user_version = 0")


def half_migrated(path: Path) -> None:
    """Of the first version by its number, and of no version by its tables."""
    execute(
        path,
        "PRAGMA journal_mode = WAL",
        f"PRAGMA application_id = {APPLICATION_ID}",
        "PRAGMA user_version = 1",
        "CREATE TABLE jobs (id TEXT)",
    )


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("of somebody's")


REFUSED: dict[Callable[[Path], None], str] = {
    rubbish: "is not a usable journal",
    a_header_and_rubbish: "is not a usable journal",
    a_torn_page: "is damaged|is not a usable journal",
    cut_short: "is damaged|is not a usable journal",
    foreign: "is a database of another program: move it away",
    foreign_and_killed: "is a database of another program: move it away",
    newer: rf"newer job-worker \(schema {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION}\)",
    newer_and_killed: rf"newer job-worker \(schema {SCHEMA_VERSION + 1}, this one knows",
    of_no_version: "is damaged",
    half_migrated: "is not a usable journal",
    a_directory: r"cannot be opened for writing: Is a directory \(EISDIR\): move it away",
}


def contents(directory: Path) -> dict[str, bytes]:
    """Every file, but what SQLite needs for reading: the index of a -wal file, and an empty one."""
    files = {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    return {
        name: data
        for name, data in files.items()
        if not name.endswith("-shm") and (data or not name.endswith("-wal"))
    }


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_is_no_usable_journal_is_refused_and_left_as_it_was(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "journal.sqlite"
    make(path)
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(StateError, match=REFUSED[make]) as raised:
            Journal(path)
        assert str(path) in str(raised.value)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("make", [rubbish, foreign_and_killed, newer_and_killed, a_directory])
def test_a_service_on_it_says_so_and_ends(
    make: Callable[[Path], None], site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    site.state.mkdir()
    path = site.state / "journal.sqlite"
    make(path)
    before = contents(site.state)
    with pytest.raises(SupervisorUnavailable, match=str(site.state)), site.worker():
        pytest.fail("it started")
    said = capfd.readouterr().err
    assert str(path) in said
    assert "its settings cannot be served with, and there is no job to stay for" in said
    after = contents(site.state)
    assert {name: after[name] for name in before} == before


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """What makes a file or directory read-only, for root, too."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount: a read-only file system was NOT tried")
    mounted: list[Path] = []

    def protect(path: Path) -> None:
        subprocess.run(["mount", "--bind", path, path], check=True)
        mounted.append(path)
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)

    yield protect
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("protected", ["the file", "the directory", "an empty directory"])
def test_what_cannot_be_written_is_refused(
    protected: str, read_only: Callable[[Path], None], tmp_path: Path
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    path = directory / "journal.sqlite"
    if protected != "an empty directory":
        own(path, 3)
    before = contents(directory)
    read_only(path if protected == "the file" else directory)
    with pytest.raises(StateError, match=r"for writing: Read-only file system \(EROFS\)") as raised:
        Journal(path)
    assert str(path) in str(raised.value)
    assert contents(directory) == before


# -- what it brings up to date ---------------------------------------------------------------

BEGUN = (State.STARTING, State.RUNNING)
FIRST_SCHEMA = """
CREATE TABLE job (
    id              TEXT PRIMARY KEY,
    owner           TEXT NOT NULL,
    tenant          TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    request         TEXT NOT NULL,
    created_ns      INTEGER NOT NULL,
    pid             INTEGER NOT NULL,
    pid_start       INTEGER NOT NULL,
    cgroup          TEXT NOT NULL,
    state           INTEGER NOT NULL,
    reason          INTEGER NOT NULL,
    exit_status     INTEGER NOT NULL,
    signal          INTEGER NOT NULL,
    ended_ns        INTEGER NOT NULL,
    output_begin    INTEGER NOT NULL,
    output_end      INTEGER NOT NULL,
    output_complete INTEGER NOT NULL,
    detail          TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX job_request ON job (owner, request_id) WHERE request_id <> '';
CREATE INDEX job_live ON job (id) WHERE state <> 4 OR NOT output_complete;
CREATE INDEX job_ended ON job (ended_ns) WHERE state = 4 AND output_complete;
"""
# An hour ago: old ones are forgotten.
CREATED_NS = time.time_ns() - 3600 * 10**9
# Every kind of row: state, reason, exit status, signal, output complete, timeout.
FIRST_ROWS = [
    (State.STARTING, Reason.NONE, 0, 0, False, 0.0),
    (State.RUNNING, Reason.NONE, 0, 0, False, 7.5),
    (State.STOPPING, Reason.STOPPED, 0, 0, False, 0.0),
    (State.STOPPING, Reason.TIMED_OUT, 0, 0, False, 1.0),
    (State.ENDED, Reason.EXITED, 3, 0, True, 0.0),
    (State.ENDED, Reason.EXITED, 0, 0, False, 100.0),
    (State.ENDED, Reason.SIGNALED, 0, 11, True, 0.0),
    (State.ENDED, Reason.STOPPED, 0, 15, True, 0.0),
    (State.ENDED, Reason.LOST, 0, 0, True, 0.0),
    (State.ENDED, Reason.TIMED_OUT, 0, 9, True, 2.0),
    (State.ENDED, Reason.OUTPUT_LIMIT, 0, 15, True, 0.0),
]


def of_the_first_schema(path: Path) -> dict[str, tuple[State, Reason, int, int, bool, float]]:
    """A journal of the first schema with a row of every kind, by job ID."""
    rows = {str(uuid_utils.uuid7()): row for row in FIRST_ROWS}
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; {FIRST_SCHEMA}"
        )
        for number, (job_id, row) in enumerate(rows.items()):
            state, reason, exit_status, number_of_signal, complete, timeout = row
            request = {
                "id": job_id,
                "owner": "library",
                "tenant": "",
                "argv": ["echo", "\u00fc\n", ""],
                "environment": {"A": "b c"},
                "cwd": "/",
                "grace": 4.5,
                "timeout": timeout,
                "request_id": f"asked-{number}",
                "output_limit": {"bytes": 8192, "overflow": 1, "rate": 0},
            }
            database.execute(
                f"INSERT INTO job VALUES ({', '.join('?' * 18)})",
                (
                    job_id,
                    "library",
                    "",
                    f"asked-{number}",
                    json.dumps(request),
                    CREATED_NS + number,
                    2**22 + number,
                    12345,
                    "",
                    state,
                    reason,
                    exit_status,
                    number_of_signal,
                    CREATED_NS + 10**9 + number if state is State.ENDED else 0,
                    0,
                    0,
                    complete,
                    "",
                ),
            )
        database.commit()
    return rows


def test_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    rows = of_the_first_schema(path)
    # Once is enough, and twice does no harm.
    for _ in range(2):
        journal = Journal(path)
        for number, (job_id, row) in enumerate(rows.items()):
            job = journal.find(job_id)
            assert job is not None
            request = job.request
            found = (job.state, job.reason, job.exit_status, job.signal, job.output_complete)
            assert (*found, request.limits.timeout) == row
            assert (request.argv, request.environment) == (("echo", "\u00fc\n", ""), {"A": "b c"})
            assert (request.grace, request.output_limit.overflow) == (4.5, Overflow.STOP_RECORDING)
            assert (job.usage, request.account, request.network) == (Usage(), None, True)
            assert journal.find_start(replace(request, id=str(uuid_utils.uuid7()))) == job
            assert job.created_ns == CREATED_NS + number
        assert len(journal.unfinished()) == 5
        assert len(journal.ended()) == 6
        journal.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_where_processes_are_stays_on_record_with_the_third_schema(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    job_id = next(iter(of_the_first_schema(path)))
    execute(path, *MIGRATIONS[1].split(";")[:2], "UPDATE job SET cgroup = '/c'")
    execute(path, "PRAGMA user_version = 2")
    journal = Journal(path)
    job = journal.find(job_id)
    assert job is not None
    assert (job.pid, Whereabouts.of(job)) == (2**22, Whereabouts(2**22, 12345, "/c"))
    journal.close()


def test_a_service_goes_on_with_a_journal_of_the_first_schema(site: Site) -> None:
    site.state.mkdir()
    rows = of_the_first_schema(site.state / "journal.sqlite")
    with site.worker() as worker:
        found = {job.id: job for job in worker.list()}
        assert set(found) == set(rows)
        for job_id, (state, reason, exit_status, number, _, _) in rows.items():
            job = found[job_id]
            assert (job.state, job.output_complete) == (State.ENDED, True)
            if state is State.ENDED:
                assert (job.reason, job.exit_status, job.signal) == (reason, exit_status, number)
            else:
                assert job.reason is Reason.LOST
        new = worker.start(["true"])
        assert new.wait().exit_code == 0
        assert len(worker.list()) == len(rows) + 1


# -- when a change is in it --------------------------------------------------------------------


@contextmanager
def supervisor_killed(site: Site) -> Iterator[None]:
    """SIGKILL the supervisor now; there is no other before the block ends."""
    keeper = site.keeper()
    keeper.suspend()
    try:
        victim = site.signal_supervisor()
        eventually("the supervisor is dead", lambda: victim.status() == psutil.STATUS_ZOMBIE)
        yield
    finally:
        keeper.resume()


def on_record(site: Site, job_id: str, aside: Path) -> tuple[int, int, int, int] | None:
    """State, reason, exit status and signal of a job, from a copy of the files as they are."""
    aside.mkdir()
    for end in ("", "-wal"):
        shutil.copy(site.state / f"journal.sqlite{end}", aside)
    with contextlib.closing(sqlite3.connect(aside / "journal.sqlite")) as database:
        columns = "state, reason, exit_status, signal"
        found = database.execute(f"SELECT {columns} FROM job WHERE id = ?", (job_id,)).fetchone()
    return tuple(found) if found else None


def test_what_was_answered_is_on_record(site: Site, tmp_path: Path) -> None:
    script = "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"

    async def scenario() -> None:
        async with site.async_worker() as worker:
            job = await worker.start(["sh", "-c", script])
            with supervisor_killed(site):
                record = on_record(site, job.id, tmp_path / "started")
            # That it executes is to be seen on the socket of its launch, and on record soon.
            assert record in {(state, Reason.NONE, 0, 0) for state in BEGUN}
            await anext(job.output())
            await worker.client.stop(job.id, 1000)
            with supervisor_killed(site):
                record = on_record(site, job.id, tmp_path / "stopped")
            assert record is not None
            assert record[:2] in {(State.STOPPING, Reason.STOPPED), (State.ENDED, Reason.STOPPED)}
            ended = await job.wait()
            with supervisor_killed(site):
                record = on_record(site, job.id, tmp_path / "ended")
            assert record == (State.ENDED, Reason.STOPPED, 6, 0)
            assert (ended.reason, ended.exit_code) == (Reason.STOPPED, 6)
            await job.stop(0)
            await worker.client.remove(job.id)
            with supervisor_killed(site):
                record = on_record(site, job.id, tmp_path / "removed")
            assert record is None
            assert await worker.list() == []

    asyncio.run(scenario())
