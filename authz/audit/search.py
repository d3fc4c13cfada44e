"""Finds records of an audit log, one line at a time: a log may be larger than memory.

Files that end well before the time in question, or begin well after it, are not read:
CLOCKS is how far apart a file's times may be from the order they stand in.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from jobworker.authz.audit.files import AuditBroken, AuditGone, Line, decoded, files_of, texts_of
from jobworker.authz.audit.record import Carried, Changed, Decided, Event, Record

# A clock that is set back makes times stand out of order.
CLOCKS = timedelta(days=1)
# After so many it is asked whether that is enough.
_LINES_BETWEEN = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a record must have; empty or None is anything.

    `since` and `until` are aware, `until` excluded. `user` is the CN that asked, `owner`
    whose job it is about. `tenant` is the job's, or one of who asked where there is no job.
    `job` is an ID, or what one begins or ends with. `text` stands, in capitals or not, in
    the command, what else is known, the rule or the address.
    """

    since: datetime | None = None
    until: datetime | None = None
    user: str = ""
    owner: str = ""
    tenant: str = ""
    job: str = ""
    actions: tuple[str, ...] = ()
    allowed: bool | None = None
    text: str = ""

    def fits(self, record: Record) -> bool:
        """Whether the record has all of it."""
        event = record.event
        return (
            (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and (self.allowed is None or self.allowed == getattr(event, "allowed", None))
            and (not self.actions or getattr(event, "action", None) in self.actions)
            and (not self.user or getattr(event, "cn", None) == self.user)
            and (not self.owner or getattr(event, "owner", None) == self.owner)
            and (not self.job or _is_called(getattr(event, "job", ""), self.job))
            and (not self.tenant or self.tenant in _tenants(event))
            and (not self.text or self.text.casefold() in _texts(event).casefold())
        )


def search(
    directory: Path,
    wanted: Wanted,
    limit: int,
    damaged: Callable[[AuditBroken], None],
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Line]:
    """Yield the lines that are wanted, the oldest first; the last `limit`, unless that is 0.

    `damaged` is told of each line that may be wanted and is no record; once it is `enough`,
    what has been found is all.

    Raises:
        AuditError: A file cannot be read.
    """
    files = _in_time(files_of(directory), wanted)
    finding = _Finding(wanted, damaged, enough)
    if not limit:
        for file in files:
            yield from finding.in_file(file)
        return
    found: list[Line] = []
    for file in reversed(files):
        if len(found) >= limit or enough():
            break
        found = [*deque(finding.in_file(file), maxlen=limit - len(found)), *found]
    yield from found


class _Finding:
    def __init__(
        self, wanted: Wanted, damaged: Callable[[AuditBroken], None], enough: Callable[[], bool]
    ) -> None:
        self._wanted = wanted
        self._enough = enough
        self._damaged = damaged
        # What stands in a line as it is: most lines need not be decoded then.
        exact = (wanted.user, wanted.owner, wanted.tenant)
        self._parts = [_as_written(text) for text in exact if text]
        if wanted.job:
            self._parts.append(_as_written(wanted.job)[1:-1])

    def in_file(self, file: Path) -> Iterator[Line]:
        try:
            for number, text in enumerate(texts_of(file), 1):
                if number % _LINES_BETWEEN == 0 and self._enough():
                    return
                if not all(part in text for part in self._parts):
                    continue
                try:
                    line = decoded(file, number, text)
                except AuditBroken as error:
                    self._damaged(error)
                    continue
                if self._wanted.fits(line.record):
                    yield line
        except AuditGone:
            # The log has grown meanwhile, and keeps so many files alone.
            return


def _as_written(text: str) -> bytes:
    # Surrogates, which no record has.
    return msgspec.json.encode(text.encode(errors="backslashreplace").decode())


def _in_time(files: list[Path], wanted: Wanted) -> list[Path]:
    """The files that may have a record of the time."""
    begins = [_begin(file) for file in files] if wanted.since or wanted.until else []
    if not begins:
        return files
    # A file ends where the next begins.
    spans = zip(files, begins, [*begins[1:], None], strict=True)
    return [
        file
        for file, begin, end in spans
        if not (wanted.since and end and end < wanted.since - CLOCKS)
        and not (wanted.until and begin and begin > wanted.until + CLOCKS)
    ]


def _begin(file: Path) -> datetime | None:
    """The time of a file's first record; None where that cannot be told."""
    try:
        for text in texts_of(file):
            return decoded(file, 1, text).record.time
    except (AuditBroken, AuditGone):
        pass
    return None


def _is_called(job_id: str, part: str) -> bool:
    return job_id.startswith(part) or job_id.endswith(part)


def _tenants(event: Event) -> tuple[str, ...]:
    of_job = getattr(event, "tenant", "")
    if of_job or not isinstance(event, Decided):
        return (of_job,)
    return event.tenants


def _texts(event: Event) -> str:
    match event:
        case Decided():
            texts = [event.command, event.rule, event.peer]
        case Changed():
            texts = [event.state, event.detail]
        case Carried():
            texts = [event.target, event.peer]
        case _:
            texts = []
    return "\n".join(texts)
