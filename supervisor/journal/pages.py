"""Jobs page by page: of all, or of some owners with no work for those of others.

How long a page takes must not tell how many jobs others have, so whose jobs are
wanted is a matter of the index, not of what is left out afterwards.
"""

import heapq
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from jobworker.supervisor.ipc.requests import ENDING_LENGTH, Filter, List
from jobworker.supervisor.job import Reason, State
from jobworker.supervisor.journal.schema import COLUMNS

_Row = tuple[Any, ...]
# Of a statement, and the values of its marks.
_Condition = tuple[str, Sequence[str | int]]

# No part of the schema's version: who does not know them goes on all the same. As
# the table is WITHOUT ROWID, they end with its key, the ID.
_INDEXES = """
CREATE INDEX IF NOT EXISTS job_owner ON job (owner, tenant);
CREATE INDEX IF NOT EXISTS job_waiting ON job (id) WHERE state = 6;
CREATE INDEX IF NOT EXISTS job_owner_live ON job (owner, tenant) WHERE state <> 4;
CREATE INDEX IF NOT EXISTS job_ending ON job (owner, tenant, substr(id, -4));
CREATE INDEX IF NOT EXISTS job_name ON job (owner, tenant, name, state <> 4) WHERE name <> '';
"""
# Of which jobs have which labels. An older job-worker has no use for it.
_LABELS = """
CREATE TABLE IF NOT EXISTS job_label (
    id    TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (id, key)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS job_label_forget AFTER DELETE ON job
BEGIN DELETE FROM job_label WHERE id = old.id; END;
"""
_LABEL = "EXISTS (SELECT 1 FROM job_label WHERE job_label.id = job.id"
_FAILED = f"state = {State.ENDED:d} AND NOT (reason = {Reason.EXITED:d} AND exit_status = 0)"
_ENDED_BY = (
    "state = 4 AND output_complete AND "
    "(SELECT ended_ns FROM job_clock WHERE job_clock.id = job.id) <= ?"
)
_FIRST = "SELECT owner, tenant FROM job INDEXED BY job_owner WHERE"
_NEXT_TENANT = f"{_FIRST} owner = ?1 AND tenant > ?2 ORDER BY owner, tenant LIMIT 1"
_NEXT_OWNER = f"{_FIRST} owner > ?1 ORDER BY owner, tenant LIMIT 1"


class Pages:
    """Reads a journal's table of jobs."""

    def __init__(self, database: sqlite3.Connection, now_ns: Callable[[], int]) -> None:
        """Make what it takes to find an owner's jobs; `now_ns` is the time by JobClock."""
        self._database = database
        self._now_ns = now_ns
        database.executescript(_INDEXES + _LABELS)

    def label(self, job_id: str, labels: Mapping[str, str]) -> None:
        """Have a new job found by its labels, within the transaction that is open."""
        rows = [(job_id, key, value) for key, value in labels.items()]
        self._database.executemany("INSERT INTO job_label VALUES (?, ?, ?)", rows)

    def owners(self) -> list[tuple[str, str]]:
        """Every owner with every tenant they have jobs for; the work is the same for each."""
        found: list[tuple[str, str]] = []
        # No owner's name is empty.
        last: tuple[str, str] | None = ("", "")
        while last is not None:
            owner, tenant = last
            last = self._one(_NEXT_TENANT, owner, tenant) or self._one(_NEXT_OWNER, owner)
            if last is not None:
                found.append(last)
        return found

    def _one(self, statement: str, *values: str) -> tuple[str, str] | None:
        found: tuple[str, str] | None = self._database.execute(statement, values).fetchone()
        return found

    def page(self, asked: List) -> list[_Row]:
        """The rows of a page, the newest job first."""
        if not asked.whose:
            return list(self._rows(asked, "", ()))
        index = f"INDEXED BY {_index(asked)}"
        each = [self._rows(asked, index, pair) for pair in dict.fromkeys(asked.whose)]
        if len(each) == 1:
            return list(each[0])
        key = _not_ended_and_id if asked.name else _id
        return list(islice(heapq.merge(*each, key=key, reverse=True), asked.limit))

    def _rows(self, asked: List, index: str, pair: tuple[str, ...]) -> Iterator[_Row]:
        where = ["id >= ? AND id < ?"]
        # No ID has a character after "~" in ASCII.
        values: list[str | int] = [asked.prefix, asked.prefix + "~"]
        if asked.before:
            where.append("id < ?")
            values.append(asked.before)
        for condition, given in self._conditions(asked):
            where.append(condition)
            values += given
        if pair:
            where.append("owner = ? AND tenant = ?")
            values += pair
        order = "state <> 4 DESC, id DESC" if asked.name else "id DESC"
        clause = f"{index} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
        # Nothing in it but our own text.
        statement = f"SELECT {COLUMNS} FROM job {clause}"  # noqa: S608
        return self._database.execute(statement, [*values, asked.limit])

    def _conditions(self, asked: List) -> Iterator[_Condition]:
        if asked.running:
            yield "state <> 4", ()
        if asked.ended_by_ns:
            yield "state = 4 AND output_complete AND ended_ns <= ?", (asked.ended_by_ns,)
        if asked.ended_ago_ns:
            yield _ENDED_BY, (self._now_ns() - asked.ended_ago_ns,)
        for column, value in (("owner", asked.owner), ("tenant", asked.tenant)):
            if value:
                yield f"{column} = ?", (value,)
        if asked.ending:
            # The first of them as the index has it.
            parts = (asked.ending[-ENDING_LENGTH:], -len(asked.ending), asked.ending)
            yield "substr(id, -4) = ? AND substr(id, ?) = ?", parts
        if asked.name:
            yield "name <> '' AND name = ?", (asked.name,)
        yield from _conditions(asked.filter)


def _conditions(asked: Filter) -> Iterator[_Condition]:
    """What the filter asks of a row: of that alone, so that others' rows take no part in it."""
    # To those who ask, that is one.
    alike = [State.RESTARTING] if State.STOPPING in asked.states else []
    for column, wanted in (("state", [*asked.states, *alike]), ("reason", asked.reasons)):
        if wanted:
            yield f"{column} IN ({', '.join('?' * len(wanted))})", wanted
    if asked.failed:
        yield _FAILED, ()
    if asked.since_ns:
        yield "created_ns >= ?", (asked.since_ns,)
    if asked.until_ns:
        yield "created_ns < ?", (asked.until_ns,)
    if asked.name:
        # SQLite's GLOB has sets, too, which names cannot have.
        yield "name <> '' AND name GLOB ?", (asked.name.replace("[", "[[]"),)
    for key, value in asked.labels:
        yield f"{_LABEL} AND key = ? AND value = ?)", (key, value)
    for key in asked.label_keys:
        yield f"{_LABEL} AND key = ?)", (key,)
    if asked.command:
        # Between the words of JSON there is more than a space.
        words = "(SELECT group_concat(value, ' ') FROM json_each(request, '$.argv'))"
        yield f"instr({words}, ?)", (asked.command,)


def _index(asked: List) -> str:
    """Which one has the jobs of an owner with the least of what is not asked for."""
    if asked.name:
        return "job_name"
    if asked.ending:
        return "job_ending"
    return "job_owner_live" if asked.running else "job_owner"


def _not_ended_and_id(row: _Row) -> tuple[bool, str]:
    return row[8] != State.ENDED, _id(row)


def _id(row: _Row) -> str:
    return str(row[0])
