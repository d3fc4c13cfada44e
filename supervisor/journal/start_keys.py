"""Which keys (request IDs) have started a job, and what they asked for then.

As long as a job is on record its row has the key. Here is what is left of those
that were removed, for a day from their start: somebody may still be repeating
it, and must not start it a second time.
"""

import hashlib
import json
import shlex
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields

import msgspec

from jobworker.supervisor.errors import KeyTaken
from jobworker.supervisor.exact_text import legible
from jobworker.supervisor.job import Request, Waiting

# How long a key is known at least. The contract and the command's help say so.
KNOWN_SECONDS = 24 * 3600

# An older job-worker has no use for the table, and takes no harm from it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS start_key (
    owner      TEXT NOT NULL,
    request_id TEXT NOT NULL,
    job_id     TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    asked      TEXT NOT NULL,
    PRIMARY KEY (owner, request_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS start_key_created ON start_key (created_ns);
"""
_REMEMBER = """
INSERT OR REPLACE INTO start_key
SELECT owner, request_id, id, job_clock.created_ns, coalesce(json_extract(request, '$.asked'), '')
FROM job JOIN job_clock USING (id)
WHERE id = ? AND request_id <> '' AND job_clock.created_ns > ?
"""
_FIND = "SELECT job_id, asked FROM start_key WHERE owner = ? AND request_id = ? AND created_ns > ?"

# What a start is not told from another by.
_NOT_ASKED = {"id", "owner", "request_id", "account", "asked", "asker"}
# Fields of a Request in words, where they are called otherwise.
_WORDS = {
    "argv": "command",
    "cwd": "working directory",
    "grace": "grace period",
    "inside": "job that it runs in",
    "login": "login environment",
    "profile": "isolation",
    "stop": "way to stop",
    "waiting": "queue",
}
# Fields of a Waiting.
_CAME_LATER = {"after", "outcome", "at_us", "delay"}
_SHOWN = 200


class StartKeys:
    """The keys of jobs that are on record no longer, over the journal's database.

    `now_ns` is the time by JobClock, as `created_ns` is.
    """

    def __init__(self, database: sqlite3.Connection, now_ns: Callable[[], int]) -> None:
        self._database = database
        self._now_ns = now_ns
        database.executescript(_SCHEMA)

    def remember(self, job_id: str) -> None:
        """Keep the key of a job that is about to be deleted; forget those that are too old."""
        oldest = self._oldest_ns()
        self._database.execute("DELETE FROM start_key WHERE created_ns <= ?", (oldest,))
        self._database.execute(_REMEMBER, (job_id, oldest))

    def check_free(self, request: Request) -> None:
        """Raise KeyTaken when the request's key has started a job that was removed since."""
        key = request.owner, request.request_id
        row = self._database.execute(_FIND, (*key, self._oldest_ns())).fetchone()
        if row is None:
            return
        job_id, asked = row
        raise removed(request, job_id, differences(asked, request.asked))

    def _oldest_ns(self) -> int:
        return self._now_ns() - int(KNOWN_SECONDS * 1e9)


def removed(request: Request, job_id: str, others: Sequence[str] = ()) -> KeyTaken:
    """The error for a request whose key has started a job that is gone, with `others` asked for."""
    another = f", with another {_listed(others)}" if others else ""
    return KeyTaken(
        f"the request ID {request.request_id} has started job {job_id}{another}, which has "
        "been removed since: it starts nothing again within a day, use another request ID"
    )


def fingerprint(request: Request) -> str:
    """What a request asks for, field by field, in a form that tells nothing else about it."""
    asked = {
        field.name: _digest(getattr(request, field.name))
        for field in fields(Request)
        if field.name not in _NOT_ASKED
    }
    return json.dumps(asked)


def _digest(value: object) -> str:
    told = msgspec.to_builtins(value)
    if isinstance(value, Waiting):
        # A start may be repeated across an upgrade: these came later, and say nothing at first.
        told = {name: told[name] for name in told if value.after or name not in _CAME_LATER}
    text = json.dumps(told, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(first: str, second: str) -> list[str]:
    """In which fields two fingerprints differ, in words; nothing is known of an empty one.

    A field that only one of them has, of a newer version, is none.
    """
    if not first or not second:
        return []
    one, other = json.loads(first), json.loads(second)
    return [
        _WORDS.get(name, name.replace("_", " "))
        for name in one
        if name in other and one[name] != other[name]
    ]


def check_same(known: Request, asked: Request) -> None:
    """Raise KeyTaken when a request under the key of an earlier one asks for something else."""
    others = differences(known.asked or _seen(known), asked.asked)
    if not others:
        return
    was = ""
    if "command" in others:
        command = legible(shlex.join(known.argv))
        was = f" ({command if len(command) <= _SHOWN else command[:_SHOWN] + ' ...'})"
    raise KeyTaken(
        f"the request ID {asked.request_id} has started job {known.id} with another "
        f"{_listed(others)}{was}: use another request ID, or repeat that start as it was"
    )


def _seen(known: Request) -> str:
    """The fingerprint of a request on record that has none, as far as it is as it was asked."""
    asked = json.loads(fingerprint(known))
    return json.dumps({name: asked[name] for name in ("argv", "environment", "tenant")})


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
