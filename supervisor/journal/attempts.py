"""The attempts of jobs that are started again, over the journal's database."""

import sqlite3
from typing import Any

from jobworker.supervisor.job import Attempt, Reason

# Of a job so many are kept, the latest.
KEPT = 100

# An older job-worker has no use for the table.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempt (
    id           TEXT NOT NULL,
    number       INTEGER NOT NULL,
    began_ns     INTEGER NOT NULL,
    ended_ns     INTEGER NOT NULL,
    lived        REAL NOT NULL,
    reason       INTEGER NOT NULL,
    exit_status  INTEGER NOT NULL,
    signal       INTEGER NOT NULL,
    output_begin INTEGER NOT NULL,
    output_end   INTEGER NOT NULL,
    detail       TEXT NOT NULL,
    delay        REAL NOT NULL,
    failures     INTEGER NOT NULL,
    PRIMARY KEY (id, number)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS attempt_forget AFTER DELETE ON job
BEGIN DELETE FROM attempt WHERE id = old.id; END;
"""


class StoredAttempts:
    """Within the journal's transactions."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_SCHEMA)

    def put(self, job_id: str, attempt: Attempt) -> None:
        """Record one, or what is known of it by now."""
        self._database.execute(
            "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job_id,
                attempt.number,
                attempt.began_ns,
                attempt.ended_ns,
                attempt.lived,
                attempt.reason,
                attempt.exit_status,
                attempt.signal,
                attempt.output_begin,
                attempt.output_end,
                attempt.detail,
                attempt.delay,
                attempt.failures,
            ),
        )
        oldest = attempt.number - KEPT
        self._database.execute("DELETE FROM attempt WHERE id = ? AND number <= ?", (job_id, oldest))

    def of(self, job_id: str, most: int = KEPT) -> tuple[Attempt, ...]:
        """The latest of a job, the first first."""
        rows = self._database.execute(
            "SELECT * FROM attempt WHERE id = ? ORDER BY number DESC LIMIT ?", (job_id, most)
        )
        return tuple(map(_attempt_of, reversed(rows.fetchall())))


def _attempt_of(row: tuple[Any, ...]) -> Attempt:
    return Attempt(
        number=row[1],
        began_ns=row[2],
        ended_ns=row[3],
        lived=row[4],
        reason=Reason(row[5]),
        exit_status=row[6],
        signal=row[7],
        output_begin=row[8],
        output_end=row[9],
        detail=row[10],
        delay=row[11],
        failures=row[12],
    )
