"""Whose turn it is: the jobs that wait, and in which order there is room for them.

A free place goes to the tenant that has the fewest running, of equals to the one
that was served the longest ago; among its users in the same way; and of a user's
own jobs in a queue to the highest priority, then to the one asked for first. Who
is kept waiting by a bound of their own holds up nobody else.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable

from jobworker.supervisor.job import Entry
from jobworker.supervisor.quotas import Kind, Subject
from jobworker.supervisor.waiting.by_name import ByName


class Queue:
    """The jobs that wait. The work of finding the next does not grow with their number."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        # Tenant -> owner -> queue -> ranks in order.
        self._lines: dict[str, dict[str, dict[str, list[tuple[int, str]]]]] = {}
        # When each was served last, in turns.
        self._served: defaultdict[Subject, int] = defaultdict(int)
        self._turns = 0
        self._named = ByName()

    def add(self, entry: Entry) -> None:
        """Have a job wait."""
        self._entries[entry.id] = entry
        self._named.add(entry)
        tenant, owner, queue = entry.line
        owners = self._lines.setdefault(tenant, {})
        insort(owners.setdefault(owner, {}).setdefault(queue, []), entry.rank)

    def discard(self, job_id: str) -> Entry | None:
        """It waits no longer; None for one that did not."""
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return None
        self._named.discard(entry)
        tenant, owner, queue = entry.line
        ranks = self._lines[tenant][owner][queue]
        del ranks[bisect_left(ranks, entry.rank)]
        if not ranks:
            del self._lines[tenant][owner][queue]
        if not self._lines[tenant][owner]:
            del self._lines[tenant][owner]
            self._served.pop(Subject(Kind.USER, owner), None)
        if not self._lines[tenant]:
            del self._lines[tenant]
            self._served.pop(Subject(Kind.TENANT, tenant), None)
        return entry

    def get(self, job_id: str) -> Entry | None:
        """The job, if it waits."""
        return self._entries.get(job_id)

    def named(self, owner: str, name: str) -> str:
        """The ID of the owner's job of this name that waits; empty for none."""
        return self._named.of(owner, name)

    def __len__(self) -> int:
        return len(self._entries)

    def any_in(self, queue: str) -> bool:
        """Whether somebody waits in that queue."""
        return any(queue in queues for owners in self._lines.values() for queues in owners.values())

    def before(self, entry: Entry) -> int:
        """How many of its owner's come first in its queue."""
        tenant, owner, queue = entry.line
        return bisect_left(self._lines[tenant][owner][queue], entry.rank)

    def next(
        self, running: Callable[[Subject], int], blocked: Callable[[Entry], str]
    ) -> Entry | None:
        """Take out the job whose turn it is; None where all that wait are `blocked`, or none does.

        `running` says how many jobs somebody has, `blocked` why a job has to wait on,
        empty if it need not.
        """

        def order(kind: Kind) -> Callable[[str], tuple[int, int]]:
            def place(name: str) -> tuple[int, int]:
                subject = Subject(kind, name)
                return running(subject), self._served.get(subject, 0)

            return place

        for tenant in sorted(self._lines, key=order(Kind.TENANT)):
            owners = self._lines[tenant]
            for owner in sorted(owners, key=order(Kind.USER)):
                for _, job_id in sorted(ranks[0] for ranks in owners[owner].values()):
                    entry = self._entries[job_id]
                    if not blocked(entry):
                        self.discard(job_id)
                        self._serve(entry)
                        return entry
        return None

    def _serve(self, entry: Entry) -> None:
        self._turns += 1
        if entry.tenant in self._lines:
            self._served[Subject(Kind.TENANT, entry.tenant)] = self._turns
            if entry.owner in self._lines[entry.tenant]:
                self._served[Subject(Kind.USER, entry.owner)] = self._turns
