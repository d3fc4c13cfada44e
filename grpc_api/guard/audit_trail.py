"""What the server puts in its audit log: every decision, and every new state of a job."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc

from jobworker.authz.audit.log import AuditLog
from jobworker.authz.audit.record import AuditError, Event, decided
from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import Decision
from jobworker.grpc_api.config import AuditConfig
from jobworker.grpc_api.guard.access import Verdict
from jobworker.grpc_api.guard.refusal import Refusal

log = logging.getLogger(__name__)


class Caller(NamedTuple):
    """Who makes a call, and from which host:port."""

    identity: Identity
    address: str


class AuditTrail:
    """Records decisions before they take effect; without a log, none.

    `told` is called with what is wrong whenever the log cannot be written any
    more, and with None when it can again. `decisions` counts those of each
    action, allowed or not; `failures` what could not be recorded.
    """

    def __init__(
        self, log_file: AuditLog | None, *, refuse: bool, told: Callable[[str | None], None]
    ) -> None:
        """With `refuse`, what cannot be recorded must not happen."""
        self._log = log_file
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
            if self._refuse:
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

    def append(self, event: Event) -> None:
        """Record an event. Raises AuditError, which has been logged."""
        if self._log is None:
            return
        try:
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

    def _append(self, caller: Caller, verdict: Verdict) -> None:
        self.decisions[verdict.action, verdict.error is None] += 1
        self.append(_event(caller, verdict))


def open_trail(config: AuditConfig, told: Callable[[str | None], None]) -> AuditTrail:
    """Open the log that the settings name, if they do. Raises AuditError."""
    log_file = None
    if config.directory:
        log_file = AuditLog(
            Path(config.directory),
            max_file_bytes=config.rotate_bytes,
            keep_files=config.keep_files or None,
        )
    return AuditTrail(log_file, refuse=config.on_failure == "refuse", told=told)


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
