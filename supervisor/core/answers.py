"""Answers to calls that ask how jobs are. Each is made at the end of the turn, of what is then."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from jobworker.supervisor.errors import NoSuchJob
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.messages import (
    MAX_ARGV_BYTES,
    MAX_LISTED_BYTES,
    JobMessage,
    job_message,
)
from jobworker.supervisor.ipc.server import Client
from jobworker.supervisor.job import Job, State
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.turn import Turn

Survey = requests.List | requests.Observe | requests.Owners | requests.StartOf


class Answers:
    """Tells of jobs: of the live ones as they are, of the others what is on record.

    So of a live one whose changes could not be recorded: nobody is told what a
    crash might undo.
    """

    def __init__(
        self, jobs: LiveJobs, journal: Journal, turn: Turn, explain: Callable[[str], str]
    ) -> None:
        """`explain` says for what a job waits."""
        self._explain = explain
        self._jobs = jobs
        self._turn = turn
        self._journal = journal

    def find(self, job_id: str) -> Job:
        """The job of this ID. Raises NoSuchJob."""
        live = self._live(job_id)
        job = live.job if live else self._journal.find(job_id)
        if job is None:
            raise NoSuchJob(f"there is no job {job_id}")
        return job

    def _live(self, job_id: str) -> LiveJob | None:
        return None if self._turn.unrecorded(job_id) else self._jobs.get(job_id)

    def news(self, live: LiveJob) -> JobMessage:
        """A live job as it may be told of: what is on record, where its changes are not."""
        if not self._turn.unrecorded(live.job.id):
            return self.message(live.job, live)
        recorded = self._journal.find(live.job.id)
        message = self.message(recorded or live.job, None)
        message.unrecorded = True
        return message

    def message(self, job: Job, live: LiveJob | None) -> JobMessage:
        """A job as clients see it."""
        return self._message(job, live, self._journal.clock.lived_ns(job.id), MAX_ARGV_BYTES)

    def _message(
        self, job: Job, live: LiveJob | None, lived_ns: dict[str, int], most: int
    ) -> JobMessage:
        gone = live.gone if live else not self._turn.unrecorded(job.id)
        if job.state is State.PENDING:
            job = replace(job, detail=self._explain(job.id))
        ready = live is not None and live.ready
        return job_message(job, gone=gone, ready=ready, lived_ns=lived_ns.get(job.id, 0), most=most)

    def job(self, client: Client, seq: int, job_id: str) -> None:
        """Answer with one job, or that it is no longer there."""
        try:
            job = self.find(job_id)
            live = self._live(job_id)
            client.reply(seq, self.message(job, live))
        except NoSuchJob as error:
            client.refuse(seq, error)

    def survey(self, client: Client, seq: int, asked: Survey) -> None:
        """Answer with a page of jobs, with whose there are, or by telling of all from here on."""
        match asked:
            case requests.Owners():
                client.reply_owners(seq, self._journal.owners())
            case requests.StartOf(job_id):
                client.reply_start(seq, self.find(job_id))
            case requests.List():
                self._list(client, seq, asked)
            case requests.Observe():
                self._observe(client, seq, asked)

    def _list(self, client: Client, seq: int, asked: requests.List) -> None:
        if asked.filter != requests.ALL:
            # How jobs are is found out from the record.
            self._turn.settle_all()
        found = self._journal.page(asked)
        lives = [self._live(job.id) for job in found]
        lived_ns = self._journal.clock.lived_ns(*(job.id for job in found))
        client.reply(
            seq,
            *(
                self._message(live.job if live else job, live, lived_ns, MAX_LISTED_BYTES)
                for job, live in zip(found, lives, strict=True)
            ),
        )

    def _observe(self, client: Client, seq: int, asked: requests.Observe) -> None:
        """Tell a new observer how things are, and from here on how they change."""
        client.observe()
        client.reply(seq)
        for live in self._jobs:
            if self._live(live.job.id) and client.is_news(live.job.id, live.job.state):
                client.tell(live.job.id, partial(self.message, live.job, live))
        for job in self._journal.ended_within(asked.within_ns):
            client.tell(job.id, partial(self.message, job, None))
