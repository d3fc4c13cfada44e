"""The schedules on record, over the journal's database."""

import sqlite3

from jobworker.supervisor.journal.stored_request import restored, stored
from jobworker.supervisor.schedule import Schedule

# An older job-worker has no use for the table, and takes no harm from it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS schedule (
    owner    TEXT NOT NULL,
    name     TEXT NOT NULL,
    schedule TEXT NOT NULL,
    PRIMARY KEY (owner, name)
) WITHOUT ROWID;
"""


class StoredSchedules:
    """Within the journal's transactions: what is put here commits with what happened to jobs."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_SCHEMA)

    def put(self, schedule: Schedule) -> None:
        """Record one, in the place of that of its owner and name."""
        self._database.execute(
            "INSERT OR REPLACE INTO schedule VALUES (?, ?, ?)", (*schedule.key, stored(schedule))
        )

    def delete(self, schedule: Schedule) -> None:
        """Forget one."""
        self._database.execute("DELETE FROM schedule WHERE owner = ? AND name = ?", schedule.key)

    def all(self) -> list[Schedule]:
        """Every one there is."""
        rows = self._database.execute("SELECT schedule FROM schedule ORDER BY owner, name")
        return [restored(text, Schedule) for (text,) in rows]
