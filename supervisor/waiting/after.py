"""Jobs that come after others: none of them is in a queue before these have ended."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jobworker.supervisor.job import AfterOutcome, Entry, Job, Reason, State


class Settled(NamedTuple):
    """Those that wait for no other any more, and those that wait in vain, with why."""

    ready: list[Entry]
    in_vain: list[tuple[Entry, str]]


@dataclass
class _Held:
    entry: Entry
    outcome: AfterOutcome
    others: frozenset[str]
    left: set[str]


class After:
    """Owns those that wait for other jobs. The work for an end is for those that wait for it."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        # Who waits for a job, by that one's ID.
        self._waiting: defaultdict[str, set[str]] = defaultdict(set)
        # Those with a name, by owner and name.
        self._named: dict[tuple[str, str], str] = {}

    def add(self, entry: Entry, outcome: AfterOutcome, others: Mapping[str, Job | None]) -> Settled:
        """Have a job wait for others: those that have ended as they are, None for the rest."""
        held = _Held(entry, outcome, frozenset(others), set(others))
        self._held[entry.id] = held
        if entry.name:
            self._named[entry.owner, entry.name] = entry.id
        for other in others:
            self._waiting[other].add(entry.id)
        return self._settled(held, (job for job in others.values() if job is not None))

    def ended(self, job: Job) -> Settled:
        """What comes of it for those that waited for this one."""
        settled = Settled([], [])
        for waiting in sorted(self._waiting.get(job.id, ())):
            found = self._settled(self._held[waiting], [job])
            settled.ready.extend(found.ready)
            settled.in_vain.extend(found.in_vain)
        return settled

    def _settled(self, held: _Held, ended: Iterable[Job]) -> Settled:
        for job in ended:
            held.left.discard(job.id)
            if why := _in_vain(held.outcome, job):
                self.discard(held.entry.id)
                return Settled([], [(held.entry, why)])
        if held.left:
            return Settled([], [])
        self.discard(held.entry.id)
        return Settled([held.entry], [])

    def discard(self, job_id: str) -> None:
        """It waits no longer, if it did."""
        held = self._held.pop(job_id, None)
        if held is None:
            return
        self._named.pop((held.entry.owner, held.entry.name), None)
        for other in held.others:
            self._waiting[other].discard(job_id)
            if not self._waiting[other]:
                del self._waiting[other]

    def get(self, job_id: str) -> Entry | None:
        """The job, if it waits for others."""
        held = self._held.get(job_id)
        return held.entry if held else None

    def named(self, owner: str, name: str) -> str:
        """The ID of the owner's job of this name; empty for none."""
        return self._named.get((owner, name), "")

    def explain(self, job_id: str) -> str:
        """For which others a job waits, in words; empty for one that does not."""
        held = self._held.get(job_id)
        if held is None:
            return ""
        one, *more = sorted(held.left)
        others = f" and {len(more)} more, which have" if more else ", which has"
        return f"it comes after job {one}{others} not ended"

    def __len__(self) -> int:
        return len(self._held)


def _in_vain(wanted: AfterOutcome, ended: Job) -> str:
    """Why who waits for that outcome of a job has waited in vain; empty if not."""
    well = ended.state is State.ENDED and ended.reason is Reason.EXITED and not ended.exit_status
    match wanted:
        case AfterOutcome.ANY:
            return ""
        case AfterOutcome.FAIL:
            return f"it was to come after a failure, and job {ended.id} did well" if well else ""
    return "" if well else f"job {ended.id} {_outcome(ended)}"


def _outcome(job: Job) -> str:
    if job.reason is Reason.EXITED:
        return f"exited with {job.exit_status}"
    if job.signal:
        return f"was killed by signal {job.signal}"
    return "was stopped" if job.reason is Reason.STOPPED else "did not run to its end"
