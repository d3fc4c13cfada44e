"""How old jobs are, whatever the wall clock does: a step of it deletes nothing and ends nothing.

Here time is what CLOCK_BOOTTIME (clock_gettime(2)) has gone on by: within a boot
it counts also while no service runs and while the host sleeps. It began as the
wall clock was when the journal first had it, and takes no notice of that since.
While the host is off it stands still: nothing that a clock says after a boot
can be told from a step.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

# An older job-worker has no use for the tables, and takes no harm from them.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id     TEXT NOT NULL,
    boottime_ns INTEGER NOT NULL,
    time_ns     INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS job_clock (
    id         TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    ended_ns   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_clock_created ON job_clock (created_ns);
CREATE INDEX IF NOT EXISTS job_clock_ended ON job_clock (ended_ns);
CREATE TRIGGER IF NOT EXISTS job_clock_forget AFTER DELETE ON job
BEGIN DELETE FROM job_clock WHERE id = old.id; END;
"""
# Of jobs that were recorded without, the wall clock's times are all there is.
_ADOPT = """
INSERT INTO job_clock
SELECT id, min(created_ns, ?1), CASE WHEN state = 4 THEN min(ended_ns, ?1) ELSE 0 END
FROM job WHERE id NOT IN (SELECT id FROM job_clock)
"""
_LATEST = "SELECT max(max(created_ns), max(ended_ns)) FROM job_clock"


def _boot_id() -> str:
    """What this boot of the host is called (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class JobClock:
    """The time, and when jobs were created and ended by it, over the journal's database.

    All times are nanoseconds; only their differences mean something.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        boot_id: Callable[[], str] = _boot_id,
        boottime_ns: Callable[[], int] = _boottime_ns,
    ) -> None:
        """Go on where the journal's last use left off."""
        self._database = database
        self._boot_id = boot_id()
        self._boottime_ns = boottime_ns
        database.executescript(_SCHEMA)
        self._offset = self._begin() - boottime_ns()
        database.execute(_ADOPT, (self.now_ns(),))
        self.note()

    def _begin(self) -> int:
        """What time it is."""
        row = self._database.execute("SELECT boot_id, boottime_ns, time_ns FROM clock").fetchone()
        if row is None:
            return time.time_ns()
        boot_id, boottime_ns, noted_ns = row
        if boot_id == self._boot_id:
            return int(noted_ns + max(0, self._boottime_ns() - boottime_ns))
        # What happened after the last note before the host went down is the later.
        (latest,) = self._database.execute(_LATEST).fetchone()
        return max(int(noted_ns), int(latest or 0))

    def now_ns(self) -> int:
        """The time."""
        return self._boottime_ns() + self._offset

    def note(self) -> None:
        """Put the time on record, for after a boot; what was not noted then does not count."""
        # On a full disk it is as if the host had been off.
        with contextlib.suppress(sqlite3.OperationalError):
            self._database.execute(
                "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)",
                (self._boot_id, (boottime := self._boottime_ns()), boottime + self._offset),
            )

    def created(self, job_id: str) -> None:
        """A job is put on record."""
        self._database.execute(
            "INSERT OR REPLACE INTO job_clock VALUES (?, ?, 0)", (job_id, self.now_ns())
        )

    def began(self, job_id: str) -> None:
        """It has waited elsewhere since it was put on record: its time begins now."""
        self._database.execute(
            "UPDATE job_clock SET created_ns = ? WHERE id = ? AND ended_ns = 0",
            (self.now_ns(), job_id),
        )

    def ended(self, job_id: str) -> None:
        """It has ended, now or earlier."""
        self._database.execute(
            "UPDATE job_clock SET ended_ns = ? WHERE id = ? AND ended_ns = 0",
            (self.now_ns(), job_id),
        )

    def lived_ns(self, *job_ids: str) -> dict[str, int]:
        """How long these jobs were, or have been until now, without those not on record."""
        now = self.now_ns()
        rows = self._database.execute(
            "SELECT id, created_ns, ended_ns FROM job_clock "
            "WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(job_ids),),
        )
        return {job_id: max(0, (ended or now) - created) for job_id, created, ended in rows}

    def age_seconds(self, job_id: str) -> float:
        """For how long the job has been on record; 0 for one that is not."""
        row = self._database.execute(
            "SELECT created_ns FROM job_clock WHERE id = ?", (job_id,)
        ).fetchone()
        return max(0.0, (self.now_ns() - row[0]) / 1e9) if row else 0.0

    def created_within(self, seconds: float) -> list[tuple[str, float]]:
        """The jobs created in the last so many seconds, and how many ago; the first first."""
        now = self.now_ns()
        rows = self._database.execute(
            "SELECT id, created_ns FROM job_clock WHERE created_ns >= ? ORDER BY created_ns",
            (now - int(seconds * 1e9),),
        )
        return [(job_id, max(0, now - created_ns) / 1e9) for job_id, created_ns in rows]

    def ended_within(self, nanoseconds: int) -> list[str]:
        """The jobs that ended so long ago or later, the first to end first."""
        rows = self._database.execute(
            "SELECT id FROM job_clock WHERE ended_ns >= ? ORDER BY ended_ns",
            (max(1, self.now_ns() - nanoseconds),),
        )
        return [job_id for (job_id,) in rows]
