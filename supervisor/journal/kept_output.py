"""How much output is kept of the jobs on record, of each user and tenant."""

import sqlite3

from jobworker.supervisor.quotas import Kind, Subject

# That of one that is started again is complete as long as it waits for that.
_COMPLETE = "(state = 4 AND output_complete OR state = 6)"
_SUM = "sum(output_end - output_begin)"


class KeptOutput:
    """Sums over the journal's jobs that have ended with their output complete, or that wait.

    SQLite itself adds up, by triggers: whatever changes the journal changes the
    sums, and a transaction that is undone undoes them. They are of this
    connection alone and in memory (TEMP), so the file knows nothing of them.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """Add up what there is; takes some time with many jobs."""
        self._database = database
        database.execute("PRAGMA temp_store = MEMORY")
        database.executescript(
            "CREATE TEMP TABLE kept (kind TEXT, name TEXT, bytes INTEGER NOT NULL, "
            "PRIMARY KEY (kind, name)) WITHOUT ROWID;"
        )
        for kind, column in ((Kind.USER, "owner"), (Kind.TENANT, "tenant")):
            database.executescript(_triggers(kind, column))

    def of(self, subject: Subject) -> int:
        """Bytes kept for a user or a tenant."""
        row = self._database.execute(
            "SELECT bytes FROM kept WHERE kind = ? AND name = ?", (subject.kind.value, subject.name)
        ).fetchone()
        return int(row[0]) if row else 0


def _triggers(kind: Kind, column: str) -> str:
    # Nothing here comes from outside.
    def add(row: str, sign: str) -> str:
        amount = f"{sign} ({row}.output_end - {row}.output_begin)"
        return (
            f"INSERT INTO kept VALUES ('{kind.value}', {row}.{column}, {amount}) "  # noqa: S608
            f"ON CONFLICT DO UPDATE SET bytes = bytes {amount};"
        )

    def when(row: str) -> str:
        return f"WHEN {row}.state = 4 AND {row}.output_complete OR {row}.state = 6"

    return f"""
INSERT INTO kept
    SELECT '{kind.value}', {column}, {_SUM} FROM job WHERE {_COMPLETE} GROUP BY {column};
CREATE TEMP TRIGGER {kind.value}_less BEFORE UPDATE ON main.job {when("old")}
BEGIN {add("old", "-")} END;
CREATE TEMP TRIGGER {kind.value}_more AFTER UPDATE ON main.job {when("new")}
BEGIN {add("new", "+")} END;
CREATE TEMP TRIGGER {kind.value}_gone AFTER DELETE ON main.job {when("old")}
BEGIN {add("old", "-")} END;
"""  # noqa: S608
