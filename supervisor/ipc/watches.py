"""The jobs that somebody in this process watches, and what the supervisor last said of each."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor.errors import NoSuchJob, SupervisorError
from jobworker.supervisor.ipc.snapshot import JobSnapshot


class Watched:
    """A job somebody follows: `job` is its last known state. Shared by all who follow it."""

    def __init__(self) -> None:
        self.job: JobSnapshot | None = None
        self.users = 0
        # Why there will be no more news.
        self._over: SupervisorError | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}

    def update(self, job: JobSnapshot) -> None:
        """Take in news and wake who waits for some."""
        self.job = job
        self._wake()

    def end(self, why: SupervisorError) -> None:
        """Take in that there will be no more news; whoever waits for some raises that."""
        self._over = why
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[JobSnapshot], bool]) -> JobSnapshot:
        """The job as soon as the condition holds for it.

        Raises NoSuchJob once it is removed, SupervisorUnavailable once the client is closed.
        """
        while self.job is None or not condition(self.job):
            if self._over is not None:
                raise self._over
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                # Who gives up waiting for a quiet job leaves nothing behind.
                self._waiters.pop(waiter, None)
        return self.job


class Watches:
    """Owns every Watched. `unwatch` is called with the ID of a job that nobody follows any more."""

    def __init__(self, unwatch: Callable[[str], None]) -> None:
        self._unwatch = unwatch
        self._by_id: dict[str, Watched] = {}
        # Watches asked for again of a new supervisor, by sequence number.
        self._renewed: dict[int, str] = {}

    @contextmanager
    def following(self, job_id: str) -> Iterator[Watched]:
        """Follow a job within the block; who finds its `job` None asks the supervisor for it."""
        watched = self._by_id.setdefault(job_id, Watched())
        watched.users += 1
        try:
            yield watched
        finally:
            watched.users -= 1
            if not watched.users:
                del self._by_id[job_id]
                self._unwatch(job_id)

    def renew(self, watch: Callable[[str], int]) -> None:
        """Ask a new supervisor for all again; `watch` sends a request and returns its number."""
        self._renewed = {watch(job_id): job_id for job_id in self._by_id}

    def answered(self, reply: ipc.Reply) -> None:
        """Take in what a reply says of jobs.

        At once, in order of arrival: by the time who asked runs again, a job may
        have changed since, and that is not to be undone.
        """
        renewed = self._renewed.pop(reply.seq, "")
        if renewed and reply.code == ipc.NO_SUCH_JOB:
            self.removed(renewed)
        for job in reply.jobs:
            self.changed(job)

    def changed(self, job: ipc.Job) -> None:
        """Take in how a job is now."""
        watched = self._by_id.get(job.id)
        if watched is not None:
            watched.update(JobSnapshot.from_message(job))

    def removed(self, job_id: str) -> None:
        """Take in that there is no such job any more."""
        watched = self._by_id.get(job_id)
        if watched is not None:
            watched.end(NoSuchJob("the job has been removed"))

    def end(self, why: SupervisorError) -> None:
        """Take in that nothing more will be heard of any job."""
        for watched in self._by_id.values():
            watched.end(why)
