"""Whether there is room for a job: in its queue, and in the quotas of its user and its tenant."""

from collections.abc import Callable, Collection, Mapping

from jobworker.supervisor.config import QueueConfig
from jobworker.supervisor.errors import InvalidRequest, QuotaReached
from jobworker.supervisor.job import DEFAULT_QUEUE, Entry, Request
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.quotas import Kind, Quota, Quotas, Subject


class Room:
    """Counts what runs, with those whose turn has come: `asked` has them.

    The quotas are those that were last told, by owner and tenant.
    """

    def __init__(
        self,
        queues: Mapping[str, QueueConfig],
        jobs: LiveJobs,
        quotas: Quotas,
        asked: Callable[[], Collection[Entry]],
    ) -> None:
        self._queues = {DEFAULT_QUEUE: QueueConfig(), **queues}
        self._jobs = jobs
        self._quotas = quotas
        self._asked = asked
        self._told: dict[tuple[str, str], Mapping[Kind, Quota]] = {}

    def note(self, entry: Entry, quotas: Mapping[Kind, Quota]) -> None:
        """These hold for the owner and the tenant of a job."""
        self._told[entry.owner, entry.tenant] = quotas

    def note_if_told(self, entry: Entry, quotas: Mapping[Kind, Quota]) -> None:
        """So they do if there are any; else what was told before does."""
        if quotas or (entry.owner, entry.tenant) not in self._told:
            self.note(entry, quotas)

    def check_queue(self, name: str) -> None:
        """Raise InvalidRequest for a queue that is not there."""
        if name not in self._queues:
            known = ", ".join(sorted(self._queues))
            raise InvalidRequest(f"there is no queue {name!r}: they are {known}", "queue")

    def running(self) -> Callable[[Subject], int]:
        """How many somebody has; counted once each."""
        known: dict[Subject, int] = {}

        def running(subject: Subject) -> int:
            if subject not in known:
                known[subject] = self._jobs.running(subject)
            asked = sum(
                subject.name == (one.owner if subject.kind is Kind.USER else one.tenant)
                for one in self._asked()
            )
            return known[subject] + asked

        return running

    def blocked(self, entry: Entry) -> str:
        """Why a job has to wait on; empty if it need not, as far as is known here."""
        told = self._told.get((entry.owner, entry.tenant), {})
        return self.none_for(entry.queue, entry, told)

    def none_for(self, queue: str, who: Request | Entry, quotas: Mapping[Kind, Quota]) -> str:
        """Why there is none for a job; empty if there is."""
        if full := self.full(queue):
            return full
        try:
            self._quotas.check(who, quotas)
        except QuotaReached as error:
            return str(error)
        return ""

    def full(self, name: str) -> str:
        """Why a queue takes no more; empty if it does."""
        if not name:
            # One that waits only because it is started again.
            return ""
        # One that the settings have no more goes on as the default one.
        parallel = self._queues.get(name, self._queues[DEFAULT_QUEUE]).parallel
        if not parallel:
            return ""
        taken = self._jobs.running_in(name)
        taken += sum(entry.queue == name for entry in self._asked())
        return f"{taken} of {parallel} run in the queue {name}" if taken >= parallel else ""
