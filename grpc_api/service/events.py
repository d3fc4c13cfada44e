"""What happens to jobs, as it happens, and what has happened of late: told to who may list them."""

import asyncio
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from jobworker.grpc_api.guard.access import Access, facts
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import invalid
from jobworker.grpc_api.service.messages import status_message
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot, SupervisorClient

# So many are kept for those who come back, and the states last told of as many jobs.
KEPT = 8192
_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})-([0-9]{1,11})", re.ASCII)
# Of a command line as much as a list has of it.
_MOST_BYTES = 2048
# A new supervisor tells of the jobs that ended since the last news, and a little before; a
# new front of those that ended in the last hour.
_MARGIN_NS = 60 * 1_000_000_000
_AT_FIRST_NS = 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    time_ns: int
    job: JobSnapshot


class _Cursor(NamedTuple):
    """A place among the events of a front: behind the one of that number, and when that was."""

    front: str
    number: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.front}-{self.number}-{self.seconds}"


class _Begin(NamedTuple):
    """Behind which number to begin, and whether some before are not known.

    What ended `before_ns` was told already, by another front.
    """

    number: int
    missed: bool = False
    before_ns: int = 0


class EventLog:
    """The latest events, numbered from 1 in the order in which the supervisor told of them.

    Each is a state that a job has come to; it is told once for each of its attempts. Nothing
    is listened to before somebody asks for the first time: that costs every job a little.
    """

    def __init__(self, supervisor: SupervisorClient) -> None:
        self._supervisor = supervisor
        self._listening = False
        self._front = secrets.token_hex(4)
        self._began_ns = time.time_ns()
        self._events: deque[_Event] = deque(maxlen=KEPT)
        self._last = 0
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._told_ns = 0
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Have the supervisor tell, and return when it has told what is known now."""
        if not self._listening:
            self._listening = True
            self._supervisor.observe(self.within_ns, self.told)
        # It answers in the order in which it is asked.
        await self._supervisor.owners()

    def within_ns(self) -> int:
        """How long ago the end of a job may be that was not told."""
        if not self._told_ns:
            return _AT_FIRST_NS
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._told_ns + _MARGIN_NS

    def told(self, job: JobSnapshot) -> None:
        """The supervisor has told of a job as it is now."""
        self._told_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        state = int(job.state), job.attempt
        if self._known.get(job.id) == state:
            return
        self._known[job.id] = state
        self._known.move_to_end(job.id)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        self._last += 1
        self._events.append(_Event(self._last, time.time_ns(), _shortened(job)))
        self._news.set()
        self._news = asyncio.Event()

    def begin(self, request: pb.EventsRequest) -> _Begin:
        """Where somebody goes on, or begins.

        Raises Refusal for what is no cursor.
        """
        oldest = self._events[0].number - 1 if self._events else self._last
        if request.cursor:
            cursor = _cursor_of(request.cursor)
            if cursor.front == self._front:
                return _Begin(max(cursor.number, oldest), cursor.number < oldest)
            # This front has been told of what ended a while before it began.
            told_ns = cursor.seconds * 10**9
            missed = told_ns < self._began_ns - _AT_FIRST_NS or oldest > 0
            return _Begin(oldest, missed, told_ns - _MARGIN_NS)
        if request.HasField("since"):
            since = request.since.ToNanoseconds()
            later = (one.number - 1 for one in self._events if one.time_ns >= since)
            return _Begin(next(later, self._last))
        return _Begin(oldest if request.noFollow else self._last)

    def after(self, number: int) -> tuple[list[_Event], bool]:
        """The events behind that number, and whether some in between are not kept any more."""
        if not self._events or number >= self._last:
            return [], False
        first = self._events[0].number
        skipped = max(0, number + 1 - first)
        return [self._events[at] for at in range(skipped, len(self._events))], number + 1 < first

    def cursor(self, number: int) -> str:
        """The place behind that number, as it is told."""
        return str(_Cursor(self._front, number, time.time_ns() // 10**9))

    async def more(self, number: int) -> None:
        """Return when there is one behind that number."""
        while self._last <= number:
            await self._news.wait()


async def serve(
    log: EventLog, access: Access, call: Call, request: pb.EventsRequest
) -> AsyncIterator[pb.Event]:
    """The events that the caller may list, as the request wants them. Raises Refusal."""
    if request.cursor and request.HasField("since"):
        raise invalid("since", "a cursor and a time both say where to begin")
    await log.listen()
    number, missed, before_ns = log.begin(request)
    yield pb.Event(cursor=log.cursor(number), missed=missed, at=not missed)
    while True:
        events, missed = log.after(number)
        if missed:
            yield pb.Event(cursor=log.cursor(events[0].number - 1), missed=True)
        for event in events:
            number = event.number
            if 0 < event.job.ended_ns < before_ns or not _wanted(event.job, request):
                continue
            if _may(access, call, event.job):
                message = pb.Event(cursor=log.cursor(number), job=status_message(event.job))
                message.time.FromNanoseconds(event.time_ns)
                yield message
        if request.noFollow:
            return
        await log.more(number)


def _may(access: Access, call: Call, job: JobSnapshot) -> bool:
    return access.authority.decide(call.identity, "list", facts(job)).allowed


def _wanted(job: JobSnapshot, request: pb.EventsRequest) -> bool:
    name, labels = job.request.name, job.request.labels
    return (
        request.owner in ("", job.owner)
        and request.tenant in ("", job.tenant)
        and (not request.name or (bool(name) and fnmatchcase(name, _plain(request.name))))
        and all(labels.get(key) == value for key, value in request.labels.items())
    )


def _plain(pattern: str) -> str:
    # Names have no brackets: those stand for themselves.
    return pattern.replace("[", "[[]")


def _cursor_of(text: str) -> _Cursor:
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise invalid("cursor", f"{text[:64]!r} is no cursor of an event")
    return _Cursor(found[1], int(found[2]), int(found[3]))


def _shortened(job: JobSnapshot) -> JobSnapshot:
    """With as much of the command line as a list has; without attempts, as there."""
    kept: list[str] = []
    left = _MOST_BYTES
    for word in job.argv:
        if len(word) > left:
            return replace(job, argv=(*kept, word[:left]), argv_cut=True, attempts=())
        kept.append(word)
        left -= len(word)
    return replace(job, attempts=()) if job.attempts else job
