"""Jobs that come after others: none of them is in a queue before these have ended."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jobworker.supervisor.job import AfterOutcome, Entry, Job, Reason, State
from jobworker.supervisor.waiting.by_name import ByName


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
        self._named = ByName()

    def add(
        self,
        entry: Entry,
        outcome: AfterOutcome,
        others: Mapping[str, Job | None],
        ready: Collection[str] = (),
    ) -> Settled:
        """Have a job wait for others: those that have ended as they are, None for the rest.

        Those that are `ready` are waited for no more by who waits for that.
        """
        left = set(others) - set(ready if outcome is AfterOutcome.READY else ())
        held = _Held(entry, outcome, frozenset(others), left)
        self._held[entry.id] = held
        self._named.add(entry)
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

    def ready(self, job_id: str) -> Settled:
        """What comes of it that this one is ready."""
        settled = Settled([], [])
        for waiting in sorted(self._waiting.get(job_id, ())):
            held = self._held[waiting]
            if held.outcome is AfterOutcome.READY:
                held.left.discard(job_id)
                settled.ready.extend(self._settled(held, ()).ready)
        return settled

    def _settled(self, held: _Held, ended: Iterable[Job]) -> Settled:
        for job in ended:
            met = held.outcome is AfterOutcome.READY and job.id not in held.left
            held.left.discard(job.id)
            if not met and (why := _in_vain(held.outcome, job)):
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
        self._named.discard(held.entry)
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
        return self._named.of(owner, name)

    def explain(self, job_id: str) -> str:
        """For which others a job waits, in words; empty for one that does not."""
        held = self._held.get(job_id)
        if held is None:
            return ""
        one, *more = sorted(held.left)
        are = "have" if more else "has"
        what = f"{are} not ended"
        if held.outcome is AfterOutcome.READY:
            what = f"{'are' if more else 'is'} not ready"
        others = f" and {len(more)} more" if more else ""
        return f"it comes after job {one}{others}, which {what}"

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
