"""What the server puts in its audit log: every decision, and every new state of a job."""

import logging
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc

from jobworker.authz.audit.log import AuditLog
from jobworker.authz.audit.record import AuditError, Carried, Event, decided
from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import Decision
from jobworker.grpc_api.config import AuditConfig
from jobworker.grpc_api.guard.access import Verdict
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.supervisor import Ballast, JobSnapshot

log = logging.getLogger(__name__)

# Room taken ahead, for some thousand records on a disk that is full.
BALLAST_BYTES = 1024 * 1024
# So many records may wait for room.
MOST_OWED = 10_000


class Caller(NamedTuple):
    """Who makes a call, and from which host:port."""

    identity: Identity
    address: str


class Session(NamedTuple):
    """What an action was done to a job with, such as a port, and the bytes to it and from it."""

    action: str
    job: JobSnapshot
    target: str
    up: int
    down: int
    seconds: float


class AuditTrail:
    """Records decisions before they take effect; without a log, none.

    `told` is called with what is wrong whenever the log cannot be written any
    more, and with None when it can again. `decisions` counts those of each
    action, allowed or not; `failures` what could not be recorded. Who ends or removes
    a job of their own may make room by that: it is done all the same, and
    recorded when there is room.
    """

    def __init__(
        self,
        log_file: AuditLog | None,
        *,
        refuse: bool,
        told: Callable[[str | None], None],
        room: Ballast | None = None,
    ) -> None:
        """With `refuse`, what cannot be recorded must not happen; `room` is taken ahead for it."""
        self._log = log_file
        self._room = room
        self._owed: deque[Event] = deque()
        self._refuse = refuse
        self._told = told
        self._failing = False
        self.decisions: Counter[tuple[str, bool]] = Counter()
        self.failures = 0

    def require(self, caller: Caller, verdict: Verdict) -> None:
        """Record a decision. Raises Refusal (UNAVAILABLE) when it must be, and cannot."""
        try:
            self._append(caller, verdict)
        except AuditError:
            if _makes_room(caller, verdict) and len(self._owed) < MOST_OWED:
                self._owed.append(_event(caller, verdict))
                log.warning("to be recorded: %s", verdict.decision and verdict.decision.reason)
            elif self._refuse:
                raise Refusal(
                    grpc.StatusCode.UNAVAILABLE,
                    "AUDIT_UNAVAILABLE",
                    "the server cannot write its audit log, and does nothing that it cannot "
                    "record; tell its administrator, or try again later",
                ) from None

    def note(self, caller: Caller, verdict: Verdict) -> None:
        """Record a decision that takes effect in any case, if that is possible."""
        try:
            self._append(caller, verdict)
        except AuditError:
            # Already told by `append`.
            return

    def session(self, caller: Caller, session: Session) -> None:
        """Record what went through a session that has ended, if that is possible."""
        try:
            self.append(_carried(caller, session))
        except AuditError:
            # Already told by `append`.
            return

    def append(self, event: Event) -> None:
        """Record an event. Raises AuditError, which has been logged."""
        if self._log is None:
            return
        try:
            while self._owed:
                self._log.append(self._owed[0])
                self._owed.popleft()
            self._log.append(event)
        except AuditError as error:
            self.failures += 1
            if not self._failing:
                log.error("%s", error)
                self._failing = True
                self._told(str(error))
            raise
        if self._failing:
            log.info("the audit log can be written again")
            self._failing = False
            self._told(None)
        if self._room is not None:
            self._room.take()

    def _append(self, caller: Caller, verdict: Verdict) -> None:
        self.decisions[verdict.action, verdict.error is None] += 1
        self.append(_event(caller, verdict))


def open_trail(config: AuditConfig, told: Callable[[str | None], None]) -> AuditTrail:
    """Open the log that the settings name, if they do. Raises AuditError."""
    log_file = room = None
    if config.directory:
        directory = Path(config.directory)
        log_file = AuditLog(
            directory,
            max_file_bytes=config.rotate_bytes,
            keep_files=config.keep_files or None,
            make_room=lambda: room is not None and room.give_up(),
        )
        room = Ballast(directory / "ballast", BALLAST_BYTES)
    return AuditTrail(log_file, refuse=config.on_failure == "refuse", told=told, room=room)


def _makes_room(caller: Caller, verdict: Verdict) -> bool:
    """Whether it ends or removes what is the caller's own, or what the method picks itself."""
    own = verdict.about.owner in (caller.identity.common_name, "*")
    return verdict.action == "stop" and verdict.error is None and own


def _carried(caller: Caller, session: Session) -> Event:
    return Carried(
        cn=caller.identity.common_name,
        serial=caller.identity.serial,
        peer=caller.address,
        action=session.action,
        job=session.job.id,
        owner=session.job.owner,
        tenant=session.job.tenant,
        target=session.target,
        up=session.up,
        down=session.down,
        seconds=round(session.seconds, 3),
    )


def _event(caller: Caller, verdict: Verdict) -> Event:
    decision = verdict.decision or Decision(allowed=False, reason=str(verdict.error), rule=None)
    return decided(
        identity=caller.identity,
        peer=caller.address,
        action=verdict.action,
        job_id=verdict.job_id[:64],
        job=verdict.about,
        decision=decision,
        version=verdict.policy,
    )
