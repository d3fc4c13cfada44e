"""How much users and tenants may have at once, and whether a start would exceed it.

The supervisor holds to them because it alone knows of every job: what the
front counted would be wrong after its restart, and while starts are under way.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from jobworker.supervisor.errors import QuotaReached

WINDOW_SECONDS = 60.0


class Kind(Enum):
    """Whom a quota is for."""

    USER = "user"
    TENANT = "tenant"


class Subject(NamedTuple):
    """A user (a job's owner) or a tenant."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        """Return `tenant team-a`."""
        return f"{self.kind.value} {self.name}"


@dataclass(frozen=True)
class Quota:
    """The most somebody may have; 0 for no limit.

    Jobs that have not ended, starts within WINDOW_SECONDS, bytes of output kept
    of jobs that have ended and of those that have not.
    """

    running: int = 0
    starts_per_minute: int = 0
    output_bytes: int = 0


@dataclass(frozen=True)
class Counts:
    """What there is now of a Subject's; functions, as most is asked for seldom."""

    running: Callable[[Subject], int]
    output_bytes: Callable[[Subject], int]


class Owned(Protocol):
    """What is somebody's: a request, or a job that waits."""

    @property
    def owner(self) -> str:
        """The user."""

    @property
    def tenant(self) -> str:
        """The tenant it is for, or empty."""


def subjects_of(request: Owned) -> tuple[Subject, ...]:
    """Whose quotas a job counts for."""
    owner = Subject(Kind.USER, request.owner)
    return (owner, Subject(Kind.TENANT, request.tenant)) if request.tenant else (owner,)


class Quotas:
    """Admits starts. `clock` gives seconds that only ever grow."""

    def __init__(self, counts: Counts, clock: Callable[[], float]) -> None:
        self._counts = counts
        self._clock = clock
        self._starts: defaultdict[Subject, deque[float]] = defaultdict(deque)

    def started(self, subject: Subject, seconds_ago: float) -> None:
        """Count a start of an earlier supervisor's; the longest ago first."""
        self._starts[subject].append(self._clock() - seconds_ago)

    def admit(self, request: Owned, quotas: Mapping[Kind, Quota]) -> None:
        """Count a start. Raises QuotaReached, and counts none, when one is exceeded."""
        self.check(request, quotas)
        for subject in subjects_of(request):
            if subject.kind in quotas and quotas[subject.kind].starts_per_minute:
                self._starts[subject].append(self._clock())

    def check(self, request: Owned, quotas: Mapping[Kind, Quota]) -> None:
        """Raise QuotaReached for a start that would exceed one."""
        for subject in subjects_of(request):
            if subject.kind in quotas:
                self._check(subject, quotas[subject.kind])

    def _check(self, subject: Subject, quota: Quota) -> None:
        if quota.running and (running := self._counts.running(subject)) >= quota.running:
            raise _reached(
                subject,
                "running",
                f"{running} jobs run of {quota.running} allowed; stop one, or wait for its end",
            )
        if quota.starts_per_minute:
            self._check_rate(subject, quota.starts_per_minute)
        if quota.output_bytes:
            kept = self._counts.output_bytes(subject)
            if kept >= quota.output_bytes:
                raise _reached(
                    subject,
                    "output_bytes",
                    f"{kept} bytes of output are kept of {quota.output_bytes} allowed; "
                    "remove jobs that have ended",
                )

    def _check_rate(self, subject: Subject, allowed: int) -> None:
        starts, now = self._starts[subject], self._clock()
        while starts and starts[0] <= now - WINDOW_SECONDS:
            starts.popleft()
        if len(starts) >= allowed:
            # When so many have left the window that there is room for one.
            seconds = starts[len(starts) - allowed] + WINDOW_SECONDS - now
            raise _reached(
                subject,
                "starts_per_minute",
                f"{len(starts)} starts within a minute of {allowed} allowed; "
                f"try again in {seconds:.0f} s",
            )


def _reached(subject: Subject, name: str, words: str) -> QuotaReached:
    return QuotaReached(
        f"the quota {name} of the {subject} is reached: {words}",
        f"{subject.kind.value}/{subject.name}/{name}",
    )
