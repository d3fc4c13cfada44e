"""The tables of the journal, of every version, and how one becomes the next."""

# "jobw" in ASCII, so that file(1) and we know the file for ours.
APPLICATION_ID = 0x6A6F6277
SCHEMA_VERSION = 7

SCHEMA = """
CREATE TABLE job (
    id              TEXT PRIMARY KEY,
    owner           TEXT NOT NULL,
    tenant          TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    request         TEXT NOT NULL,
    created_ns      INTEGER NOT NULL,
    pid             INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    reason          INTEGER NOT NULL,
    exit_status     INTEGER NOT NULL,
    signal          INTEGER NOT NULL,
    ended_ns        INTEGER NOT NULL,
    output_begin    INTEGER NOT NULL,
    output_end      INTEGER NOT NULL,
    output_complete INTEGER NOT NULL,
    detail          TEXT NOT NULL,
    usage           TEXT NOT NULL DEFAULT '{}',
    engine_record   TEXT NOT NULL DEFAULT '',
    name            TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE UNIQUE INDEX job_request ON job (owner, request_id) WHERE request_id <> '';
CREATE INDEX job_live ON job (id) WHERE state <> 4 OR NOT output_complete;
CREATE INDEX job_ended ON job (ended_ns) WHERE state = 4 AND output_complete;
"""

# Schema version -> what makes it the next one.
MIGRATIONS = {
    1: """
ALTER TABLE job ADD COLUMN usage TEXT NOT NULL DEFAULT '{}';
UPDATE job SET request = json_set(
    request, '$.limits', json_object('timeout', coalesce(json_extract(request, '$.timeout'), 0.0)));
""",
    # There was one engine, that of this host.
    2: """
ALTER TABLE job ADD COLUMN engine_record TEXT NOT NULL DEFAULT '';
UPDATE job SET engine_record = json_object('pid', pid, 'start', pid_start, 'cgroup', cgroup);
ALTER TABLE job DROP COLUMN pid_start;
ALTER TABLE job DROP COLUMN cgroup;
""",
    # The state 5, paused, which a job-worker of before would not know.
    3: "",
    # The state 6, pending, and reasons that only such jobs end for.
    4: "",
    # What people call a job; of those of before nobody was asked.
    5: "ALTER TABLE job ADD COLUMN name TEXT NOT NULL DEFAULT '';",
    # The state 7, restarting.
    6: "",
}

# What is written once, and what `update` writes; both in the order of their values.
FIXED = ["id", "owner", "tenant", "request_id", "request", "created_ns"]
CHANGING = [
    "pid",
    "engine_record",
    "state",
    "reason",
    "exit_status",
    "signal",
    "ended_ns",
    "output_begin",
    "output_end",
    "output_complete",
    "detail",
    "usage",
]
COLUMNS = ", ".join(FIXED + CHANGING)
_MARKS = ", ".join("?" * len([*FIXED, *CHANGING, "name"]))
# The name is read with the request; its own column is to find it by.
INSERT = f"INSERT INTO job ({COLUMNS}, name) VALUES ({_MARKS})"  # noqa: S608 - no text but ours
UPDATE = f"UPDATE job SET {' = ?, '.join(CHANGING)} = ? WHERE id = ?"  # noqa: S608 - the same
BEGIN_WAITING = UPDATE.replace("SET ", "SET request = ?, created_ns = ?, ", 1)
