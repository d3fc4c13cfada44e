"""Jobs' new states on their way into the audit log: each at least once, whatever dies."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Never

from jobworker.authz.audit.files import Line, last_lines
from jobworker.authz.audit.record import AuditError, Changed
from jobworker.grpc_api.config import AuditConfig
from jobworker.grpc_api.guard.audit_trail import AuditTrail
from jobworker.supervisor import (
    JobSnapshot,
    Reason,
    State,
    SupervisorClient,
)

log = logging.getLogger(__name__)

# What happened in so long before the log's last record may have missed it: the
# front was killed between hearing of it and recording it. Wider than any delay
# of a front that is alive.
_MARGIN_NS = 60 * 1_000_000_000
# Longer than any job is on record.
_EVER_NS = 2**62
# Records remembered, so that what is heard twice is recorded once.
REMEMBERED = 20_000
_RETRY_SECONDS = 1.0
_RECORDED = (State.RUNNING, State.PAUSED, State.STOPPING, State.ENDED)

_TURNS = {"running": "paused", "paused": "running"}

# Of an attempt that was not the last.
_RESTARTING = "restarting"

# A job's ID, the name of a state in the log, and the number of the attempt.
_Key = tuple[str, str, int]


async def keep_recording(
    supervisor: SupervisorClient, trail: AuditTrail, config: AuditConfig
) -> Never:
    """Record all jobs' states until cancelled; without a log, only wait. Raises AuditError."""
    if not config.directory:
        await asyncio.Future()
    jobs = JobTrail(trail, last_lines(Path(config.directory), REMEMBERED))
    supervisor.observe(jobs.within_ns, jobs.told)
    await jobs.run()


class JobTrail:
    """Records the states of jobs that the supervisor tells of.

    What cannot be recorded waits, the newest state of each job; the supervisor
    tells a next front of it again.
    """

    def __init__(self, trail: AuditTrail, recorded: Iterable[Line]) -> None:
        """`recorded` are the last lines of the log."""
        self._trail = trail
        self._known: OrderedDict[_Key, None] = OrderedDict()
        self._waiting: dict[str, JobSnapshot] = {}
        self._news = asyncio.Event()
        # When the log's last line is from, by the wall clock, and when it got its
        # last from here.
        self._recorded_ns = 0
        self._told_boottime_ns = 0
        for line in recorded:
            self._recorded_ns = int(line.record.time.timestamp() * 1e9)
            if isinstance(line.record.event, Changed):
                self._remember(_key(line.record.event))

    def within_ns(self) -> int:
        """How long ago the first end of a job may be that the log misses."""
        if self._told_boottime_ns:
            return _boottime_ns() - self._told_boottime_ns + _MARGIN_NS
        if not self._recorded_ns:
            return _MARGIN_NS
        ago = time.time_ns() - self._recorded_ns
        # The clock has been set back, and nobody knows how long it was: what is
        # recorded already is known, for the most part.
        return ago + _MARGIN_NS if ago >= 0 else _EVER_NS

    def told(self, job: JobSnapshot) -> None:
        """The supervisor has told of a job as it is now."""
        if job.attempts:
            news = any(not self._is_known(job, event) for event in changes(job))
        else:
            known = (job.id, _name(job.state), job.attempt) in self._known
            news = job.state in _RECORDED and not known
        if news:
            self._waiting[job.id] = job
            self._news.set()

    async def run(self) -> Never:
        """Record what is told, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                self._record()
            except AuditError:
                await asyncio.sleep(_RETRY_SECONDS)
                self._news.set()

    def _record(self) -> None:
        for job_id in list(self._waiting):
            job = self._waiting[job_id]
            for event in changes(job):
                if not self._is_known(job, event):
                    self._trail.append(event)
                    self._remember(_key(event))
            del self._waiting[job_id]
            self._told_boottime_ns = _boottime_ns()

    def _is_known(self, job: JobSnapshot, event: Changed) -> bool:
        if _key(event) in self._known:
            return True
        # A paused job has run, and is told to run again only when it does.
        began = event.state == _name(State.RUNNING) and job.state is not State.RUNNING
        return began and (job.id, _name(State.PAUSED), event.attempt) in self._known

    def _remember(self, key: _Key) -> None:
        self._known[key] = None
        # These two take turns.
        job_id, state, attempt = key
        if (other := _TURNS.get(state)) is not None:
            self._known.pop((job_id, other, attempt), None)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _boottime_ns() -> int:
    """What goes on while the host sleeps, and is not set (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def changes(job: JobSnapshot) -> Iterator[Changed]:
    """The states that a job must have gone through to be as it is, for the log."""
    whose = {"job": job.id, "owner": job.owner, "tenant": job.tenant}
    for attempt in job.attempts:
        ended = f"{_reason(Reason(attempt.endReason))}, exit code {attempt.exitCode}"
        ended += f", at {_time(attempt.endedAt.ToNanoseconds())}"
        yield Changed(**whose, state=_RESTARTING, detail=ended, attempt=attempt.number)
    common: dict[str, Any] = {**whose, "attempt": job.attempt}
    # One that waited, and ended without its turn, has no process.
    if job.state in _RECORDED and job.pid:
        began = f"process {job.pid}, since {_time(job.created_ns)}"
        yield Changed(**common, state=_name(State.RUNNING), detail=began)
    if job.state is State.PAUSED:
        yield Changed(**common, state=_name(State.PAUSED), detail="")
    if job.state is State.STOPPING:
        yield Changed(**common, state=_name(State.STOPPING), detail=_reason(job.reason))
    if job.state is State.ENDED:
        ended = f"{_reason(job.reason)}, exit code {job.exit_code}, at {_time(job.ended_ns)}"
        yield Changed(**common, state=_name(State.ENDED), detail=ended)


def _key(event: Changed) -> _Key:
    return event.job, event.state, event.attempt


def _name(state: State) -> str:
    return state.name.lower()


def _reason(reason: Reason) -> str:
    return reason.name.lower().replace("_", " ")


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")
