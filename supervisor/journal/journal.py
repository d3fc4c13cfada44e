"""The record of every job: one SQLite file (WAL), written by the supervisor alone.

A commit survives the death of any process at once, as the kernel has the bytes
(synchronous=NORMAL, https://sqlite.org/wal.html). `sync` makes all commits so
far survive the loss of power, too: the supervisor calls it once a turn, before
it answers anybody, so that many starts share one fdatasync(2).
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from jobworker.supervisor.errors import InvalidRequest, StateError, words
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.host.disk_space import Ballast
from jobworker.supervisor.ipc.requests import List
from jobworker.supervisor.job import ONCE, Entry, Job, Reason, Request, State, Waiting
from jobworker.supervisor.journal.attempts import KEPT, StoredAttempts
from jobworker.supervisor.journal.job_clock import JobClock
from jobworker.supervisor.journal.kept_output import KeptOutput
from jobworker.supervisor.journal.pages import Pages
from jobworker.supervisor.journal.schedules import StoredSchedules
from jobworker.supervisor.journal.schema import (
    APPLICATION_ID,
    BEGIN_WAITING,
    COLUMNS,
    INSERT,
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    UPDATE,
)
from jobworker.supervisor.journal.start_keys import StartKeys, check_same
from jobworker.supervisor.journal.stored_request import restored, stored

# What is taken ahead on the disk, for commits that find it full: more than SQLite's -wal
# file grows to before it begins anew.
BALLAST_BYTES = 8 * 1024 * 1024
# With so many pages in it SQLite begins the -wal file anew.
_MOST_PAGES = 1000
_PAGE_BYTES = 4096


class Ended(NamedTuple):
    """A job that has ended: when (by JobClock), and how many bytes of output are kept of it."""

    id: str
    ended_ns: int
    output_bytes: int


class Journal:
    """An open journal. Every method may raise sqlite3.Error when the disk fails."""

    def __init__(self, path: Path) -> None:
        """Open or create it; raises StateError for what is not a journal of ours that can be used.

        What is refused is left byte for byte as it was.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StateError(
                f"{path} cannot be opened for writing: {words(error.errno or 0)}: "
                "move it away, or give the service a state_dir that it can write to"
            ) from error
        room = path.with_name("ballast")
        try:
            try:
                self._open(path)
            except sqlite3.OperationalError as error:
                # Such as no room for SQLite's files beside it.
                if not _of_the_disk(error) or not Ballast(room, BALLAST_BYTES).give_up():
                    raise
                self._open(path)
        except sqlite3.DatabaseError as error:
            if _of_the_disk(error):
                raise StateError(
                    f"the journal {path} cannot be opened ({error}): is its disk full?"
                ) from error
            raise StateError(
                f"{path} is not a usable journal ({error}): move it away to begin a new one, "
                "or restore it from a backup"
            ) from error
        self.kept_output = KeptOutput(self._database)
        self.clock = JobClock(self._database)
        self._pages = Pages(self._database, self.clock.now_ns)
        self.start_keys = StartKeys(self._database, self.clock.now_ns)
        self.schedules = StoredSchedules(self._database)
        self._attempts = StoredAttempts(self._database)
        self._log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        # Commits since the last sync.
        self.dirty = False
        # Room for what must go on record when somebody has filled the disk.
        self._ballast = Ballast(room, BALLAST_BYTES)
        # On a small disk the -wal file begins anew before it has grown to that.
        pages = min(_MOST_PAGES, max(1, self._ballast.size // 2 // _PAGE_BYTES))
        self._database.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def _open(self, path: Path) -> None:
        version = _look_at(path)
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare(path, version)
        except BaseException:
            self._database.close()
            raise

    def make_room(self) -> bool:
        """Give up the room that was taken ahead; False when there is none to give."""
        return self._ballast.give_up()

    def keep_room(self) -> None:
        """Take that room again, if there is some."""
        self._ballast.take()

    def _prepare(self, path: Path, version: int) -> None:
        """Make it one of the present schema; 0 is the version of an empty file."""
        log = path.with_name(f"{path.name}-wal")
        left_behind = log.exists() and log.stat().st_size > 0
        # One process has it open at a time: no locks to take, no shared memory.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        if not version:
            self._database.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {SCHEMA_VERSION}; {SCHEMA} COMMIT;"
            )
        for old in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
            self._database.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[old]} PRAGMA user_version = {old + 1}; COMMIT;"
            )
        # Makes sure that there is a -wal file to sync.
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            # One that a death left behind is as good; jobs that run wait for their supervisor.
            if not (left_behind and _of_the_disk(error)):
                raise
            self.rollback()

    def close(self) -> None:
        """Make everything durable and close the file."""
        self.sync()
        os.close(self._log)
        self._database.close()

    # -- writing ---------------------------------------------------------------

    def begin(self) -> None:
        """Open a transaction unless one is open: what follows commits together."""
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")

    def commit(self, *, worth_a_sync: bool = True) -> None:
        """End the transaction, if one is open; from here on no crash of ours undoes it."""
        if self._database.in_transaction:
            self._database.execute("COMMIT")
            self.dirty |= worth_a_sync

    def rollback(self) -> None:
        """Undo the open transaction, if one is open."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def sync(self) -> None:
        """Make all commits so far survive the loss of power."""
        self.commit()
        if self.dirty:
            os.fdatasync(self._log)
            self.dirty = False

    def insert(self, job: Job) -> None:
        """Record a new job."""
        request = job.request
        self.begin()
        self._database.execute(
            INSERT,
            (
                job.id,
                request.owner,
                request.tenant,
                request.request_id,
                stored(request),
                job.created_ns,
                *_changing(job),
                request.name,
            ),
        )
        if request.labels:
            self._pages.label(job.id, request.labels)
        self.clock.created(job.id)
        if job.state is State.ENDED:
            self.clock.ended(job.id)

    def begin_waiting(self, job: Job) -> None:
        """Record the start of a job that has waited: it is as old as that from here on."""
        self.begin()
        values = (stored(job.request), job.created_ns, *_changing(job), job.id)
        self._database.execute(BEGIN_WAITING, values)
        self.clock.created(job.id)

    def update(self, job: Job) -> None:
        """Record what has changed of a job."""
        self.begin()
        self._database.execute(UPDATE, (*_changing(job), job.id))
        if job.attempts:
            self._attempts.put(job.id, job.attempts[-1])
        if job.state is State.ENDED:
            self.clock.ended(job.id)

    def delete(self, job_id: str, *, keep_key: bool = True) -> None:
        """Forget a job; what it was started under is known for as long as StartKeys says."""
        self.begin()
        if keep_key:
            self.start_keys.remember(job_id)
        self._database.execute("DELETE FROM job WHERE id = ?", (job_id,))

    # -- reading ---------------------------------------------------------------

    def find(self, job_id: str) -> Job | None:
        """The job of this ID."""
        return next(self._select("WHERE id = ?", job_id), None)

    def newest(self) -> str:
        """The ID of the newest job, empty for none."""
        found: str | None = self._database.execute("SELECT max(id) FROM job").fetchone()[0]
        return found or ""

    def find_start(self, request: Request) -> Job | None:
        """The job that this, or an earlier request under the owner's request ID, has started.

        Raises InvalidRequest when the job ID is another owner's, and KeyTaken when
        the request ID has started another job, or one that was removed since.
        """
        job = self.find(request.id)
        if job is not None and job.request.owner != request.owner:
            raise InvalidRequest(f"the job ID {request.id} is taken")
        if job is None and request.request_id:
            clause = "WHERE owner = ? AND request_id = ?"
            job = next(self._select(clause, request.owner, request.request_id), None)
            if job is None:
                self.start_keys.check_free(request)
        if job is not None:
            check_same(job.request, request)
        return job

    def unfinished(self) -> list[Job]:
        """Jobs not ended, or whose output is not complete, oldest first."""
        clause = "WHERE (state <> 4 OR NOT output_complete) AND state <> 6 ORDER BY id"
        return list(self._select(clause))

    def waiting(self) -> Iterator[tuple[Entry, Waiting, bool]]:
        """The jobs that wait for their turn, how, and whether they are to be started again."""
        rows = self._database.execute(
            "SELECT id, owner, tenant, name, json_extract(request, '$.waiting'), "
            "EXISTS (SELECT 1 FROM attempt WHERE attempt.id = job.id) "
            "FROM job INDEXED BY job_waiting WHERE state = 6 ORDER BY id"
        )
        for job_id, owner, tenant, name, how, again in rows.fetchall():
            waiting = restored(how, Waiting)
            entry = Entry(job_id, owner, tenant, waiting.queue, waiting.priority, name)
            yield entry, waiting, bool(again)

    def ended(self) -> list[Ended]:
        """Every job that has ended with its output complete, the first to end first."""
        rows = self._database.execute(
            "SELECT id, job_clock.ended_ns, output_end - output_begin FROM job_clock "
            "CROSS JOIN job USING (id) WHERE state = 4 AND output_complete "
            "ORDER BY job_clock.ended_ns"
        )
        return [Ended(*row) for row in rows]

    def ended_within(self, nanoseconds: int) -> list[Job]:
        """The jobs whose main process ended so long ago or later, the first to end first."""
        found = map(self.find, self.clock.ended_within(nanoseconds))
        return [job for job in found if job is not None]

    def started_within(self, seconds: float) -> list[tuple[float, Request]]:
        """The requests of the jobs created in the last so many seconds, and how many ago.

        The longest ago first.
        """
        found = ((ago, self.find(job_id)) for job_id, ago in self.clock.created_within(seconds))
        return [
            (ago, job.request)
            for ago, job in found
            if job is not None and job.state is not State.PENDING
        ]

    def page(self, asked: List) -> list[Job]:
        """The jobs of a page; of the attempts of each the latest alone, which tells the number."""
        return [self._job_of(row, attempts=1) for row in self._pages.page(asked)]

    def owners(self) -> list[tuple[str, str]]:
        """Every owner with every tenant they have jobs for."""
        return self._pages.owners()

    def _select(self, clause: str, *values: str | int) -> Iterator[Job]:
        for row in self._database.execute(f"SELECT {COLUMNS} FROM job {clause}", values):  # noqa: S608
            yield self._job_of(row)

    def _job_of(self, row: tuple[Any, ...], attempts: int = KEPT) -> Job:
        job = _job_of(row)
        if job.request.restart != ONCE:
            job.attempts = self._attempts.of(job.id, attempts)
        return job


def _of_the_disk(error: sqlite3.Error) -> bool:
    """Whether it says nothing of the file itself (https://sqlite.org/rescode.html)."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


def _look_at(path: Path) -> int:
    """The schema's version, 0 for an empty file; raises StateError where it is no journal of ours.

    Opened for reading, SQLite leaves alone even a -wal file that somebody's
    crash left behind.
    """
    with _opened_for_reading(path) as database:

        def one(statement: str) -> Any:
            return database.execute(statement).fetchone()[0]

        if not one("SELECT count(*) FROM sqlite_schema"):
            return 0
        if one("PRAGMA application_id") != APPLICATION_ID:
            raise StateError(f"{path} is a database of another program: move it away")
        version = int(one("PRAGMA user_version"))
        if version > SCHEMA_VERSION:
            raise StateError(
                f"{path} was written by a newer job-worker (schema {version}, this one "
                f"knows {SCHEMA_VERSION}): run that version, or move the file away"
            )
        if version < 1 or one("PRAGMA quick_check") != "ok":
            raise StateError(f"{path} is damaged: restore it, or move it away to begin anew")
        return version


@contextlib.contextmanager
def _opened_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Takes no room on the disk: SQLite reads an index of the -wal file from one of its own.

    It does so where a -shm file is there that it may not write to
    (https://sqlite.org/wal.html#readonly).
    """
    shared = path.with_name(f"{path.name}-shm")
    made = False
    # Where it cannot be made, SQLite says what is the matter.
    with contextlib.suppress(OSError):
        shared.touch(0o600, exist_ok=False)
        made = True
    try:
        address = f"{path.as_uri()}?mode=ro&readonly_shm=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            yield database
    finally:
        if made:
            shared.unlink(missing_ok=True)


def _changing(job: Job) -> tuple[int | str, ...]:
    """The values of schema.CHANGING."""
    return (
        job.pid,
        job.engine_record,
        job.state,
        job.reason,
        job.exit_status,
        job.signal,
        job.ended_ns,
        job.output_begin,
        job.output_end,
        job.output_complete,
        job.detail,
        msgspec.json.encode(job.usage).decode(),
    )


def _job_of(row: tuple[Any, ...]) -> Job:
    return Job(
        request=restored(row[4], Request),
        created_ns=row[5],
        pid=row[6],
        engine_record=row[7],
        state=State(row[8]),
        reason=Reason(row[9]),
        exit_status=row[10],
        signal=row[11],
        ended_ns=row[12],
        output_begin=row[13],
        output_end=row[14],
        output_complete=bool(row[15]),
        detail=row[16],
        usage=msgspec.json.decode(row[17], type=Usage),
    )
