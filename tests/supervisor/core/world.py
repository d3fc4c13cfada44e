"""A service whose engine, front and clock are the test's; its core and its journal are real."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uuid_utils import uuid7

from jobworker.supervisor.config import QueueConfig, SupervisorConfig
from jobworker.supervisor.core.recovery import recover
from jobworker.supervisor.core.supervisor import Supervisor
from jobworker.supervisor.engine import Exit, Reports
from jobworker.supervisor.errors import NameTaken, SupervisorError
from jobworker.supervisor.host.accounting import UNKNOWN, Usage
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.server import Client
from jobworker.supervisor.job import (
    ONCE,
    AfterOutcome,
    Asker,
    Job,
    Reason,
    Request,
    Restart,
    RestartWhen,
    State,
    Waiting,
)
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.quotas import Kind, Quota

TENANTS = {"ann": "red", "ben": "red", "cis": "blue"}
NARROW = 2
CONFIG_QUEUES = {"narrow": QueueConfig(parallel=NARROW)}


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time is the test's."""

    now = 0.0

    _ready: deque[object]
    _scheduled: list[object]

    def time(self) -> float:
        return self.now

    def forget(self) -> None:
        """Nothing that is due happens: whose it was is dead."""
        self._ready.clear()
        self._scheduled.clear()


async def passes(seconds: float = 0.0) -> None:
    """Let time go on, and everything happen that is due then."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    loop.now += seconds
    for _ in range(12):
        await asyncio.sleep(0)


class Hosts:
    """An engine whose jobs run until they are told to end; it outlives the supervisor."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.running: dict[str, Job] = {}
        # Ends that are not on record yet, as a keeper keeps them.
        self._ends: dict[str, int] = {}
        self._boot = 0
        self.reports: Reports

    def report_to(self, reports: Reports) -> None:
        self.reports = reports

    def place(self, request: Request) -> Request:
        return request

    def prepare(self, job: Job) -> None:
        job.engine_record = str(self._boot)

    def launch(self, job: Job) -> None:
        self._world.launched(job)
        self.running[job.id] = job
        self.reports.executed(job)

    def end(self, job_id: str, code: int = 0) -> None:
        """One of them exits."""
        self._ends[job_id] = code
        self._tell_end(self.running.pop(job_id))

    def _tell_end(self, job: Job) -> None:
        def recorded() -> None:
            self._ends.pop(job.id, None)

        code = self._ends[job.id]
        self.reports.exited(job, Exit(code, UNKNOWN, out_of_memory=False, recorded=recorded))
        self.reports.complete(job)

    def knows(self, job: Job) -> bool:
        never_made = job.state is State.STARTING and job.engine_record == str(self._boot)
        return job.id in self.running or job.id in self._ends or never_made

    def take_up(self, job: Job) -> None:
        if job.id not in self.running and job.id not in self._ends:
            self.launch(job)
            return
        # What has executed is told to whoever takes it up, and what has ended again.
        if job.state is State.STARTING:
            self.reports.executed(job)
        if job.id in self._ends:
            self._tell_end(job)
        else:
            self.running[job.id] = job

    def stop(self, job: Job, grace: float, way: object) -> None:
        if job.id in self.running:
            self.end(job.id)
        self.reports.stopped(job)

    def die(self) -> None:
        """As when the host goes down: nothing is left, and nobody knows of it."""
        self.running.clear()
        self._ends.clear()
        self._boot += 1

    def usage(self, job: Job) -> Usage:
        return UNKNOWN

    def output_open(self, job: Job) -> bool:
        return job.id in self.running

    def vacant(self, job: Job) -> bool | None:
        return None

    def clear(self, job: Job) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        """What is asked of an engine beside, and does nothing here."""
        return lambda *_, **__: None


class Front(Client):
    """Is asked, and answers when the test says so."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda _: None)
        self.asked: list[str] = []
        self.refusals: list[SupervisorError] = []

    def ask(self, job: Job) -> None:
        self.asked.append(job.id)

    def refuse(self, seq: int, error: SupervisorError) -> None:
        self.refusals.append(error)

    def _send(self, event: object) -> None:
        pass


class World:
    """A service, what was asked of it, and what must always hold."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._config = SupervisorConfig(state_dir=str(directory), queues=CONFIG_QUEUES)
        self.quota = dict.fromkeys(TENANTS.values(), 2)
        self.refused = set[str]()
        self.asked_for: dict[str, Request] = {}
        self.starts: list[str] = []
        # The number of the last attempt of each, and those that somebody has stopped.
        self._attempts: dict[str, int] = {}
        self.stopped = set[str]()
        self.wrong: list[str] = []
        # Those that the front has refused.
        self._never: set[str] = set()
        self.engine = Hosts(self)
        self.begin()

    def begin(self) -> None:
        """A supervisor, as after the death of another."""
        self._journal = Journal(self._directory / "journal.sqlite")
        self._supervisor = Supervisor(self._config, self._journal, self.engine, lambda: None)
        recover(self._supervisor, self._journal, self.engine)
        self.front = Front()
        self.handle(requests.Turns())

    def crash(self) -> None:
        """Only what was committed is there for the next one."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clock)
        loop.forget()
        self._journal.rollback()
        self._journal.close()
        self.begin()

    def host_dies(self) -> None:
        """And comes up again."""
        self.engine.die()
        self.crash()

    def close(self) -> None:
        self._journal.close()

    def handle(self, call: requests.Call) -> None:
        self.front.attempt(1, lambda: self._supervisor._handle(self.front, 1, call))

    def _quotas(self, tenant: str) -> dict[Kind, Quota]:
        return {Kind.TENANT: Quota(running=self.quota[tenant])}

    def submit(
        self,
        owner: str,
        queue: str,
        priority: int,
        name: str = "",
        after: Sequence[str] = (),
        outcome: AfterOutcome = AfterOutcome.UNSPECIFIED,
        restart: Restart = ONCE,
    ) -> None:
        tenant = TENANTS[owner]
        asker = Asker((tenant,), "0a", 2**60)
        request = Request(
            str(uuid7()),
            owner,
            tenant,
            ("true",),
            waiting=Waiting(queue, priority, 0.0, tuple(after), outcome),
            asker=asker,
            name=name,
            restart=restart,
        )
        holders = self.holders(owner, name)
        self.asked_for[request.id] = request
        before = len(self.front.refusals)
        self.handle(requests.Start(request, self._quotas(tenant)))
        refused = any(isinstance(one, NameTaken) for one in self.front.refusals[before:])
        if refused != bool(name and holders):
            self.wrong.append(f"the name {name} refused: {refused}, had by {holders}")

    def holders(self, owner: str, name: str) -> list[str]:
        """The owner's jobs of this name that have not ended."""
        return [
            one.id
            for one in self.asked_for.values()
            if (one.owner, one.name) == (owner, name)
            and (job := self.job(one.id)) is not None
            and job.state is not State.ENDED
        ]

    def launched(self, job: Job) -> None:
        """What the engine is told to start may be started now, for the first time."""
        # A run of a schedule has not been asked for by its ID.
        request = self.asked_for.setdefault(job.id, job.request)
        running = [self.asked_for[other] for other in self.engine.running]
        of_tenant = [one.tenant for one in running].count(request.tenant)
        narrow = [one.waiting.queue for one in running].count("narrow")
        outcome = request.waiting.outcome
        # What has begun was ready, whatever has become of it since.
        ready = set(self.starts) if outcome is AfterOutcome.READY else set()
        before = [self.job(other) for other in request.waiting.after if other not in ready]
        # Raised here, it would be taken for a fault of the engine.
        self.wrong += [
            words
            for words, so in (
                ("started twice", job.attempt != self._attempts.get(job.id, 0) + 1),
                ("started twice at once", job.id in self.engine.running),
                ("started though stopped", job.id in self.stopped),
                ("too often", not _may_be_anew(job)),
                ("started though refused", job.id in self._never),
                ("too early", any(not _fits(one, outcome) for one in before)),
                ("over the quota", of_tenant >= self.quota[request.tenant]),
                ("too many in narrow", request.waiting.queue == "narrow" and narrow >= NARROW),
            )
            if so
        ]
        self.starts.append(job.id)
        self._attempts[job.id] = job.attempt

    def answer(self, count: int) -> None:
        """Say of so many that were asked about what holds now."""
        for job_id in self.front.asked[:count]:
            request = self.asked_for[job_id]
            refusal = "no more" if request.owner in self.refused else ""
            if refusal:
                self._never.add(job_id)
            quotas = self._quotas(request.tenant)
            self.handle(requests.Admit(job_id, refusal, "", quotas))
        del self.front.asked[:count]

    def stop(self, job_id: str) -> None:
        way = self.asked_for[job_id].stop
        if (job := self.job(job_id)) is not None and job.state is not State.ENDED:
            self.stopped.add(job_id)
        self.handle(requests.Stop(job_id, 0.0, way))

    def front_dies(self) -> None:
        """And another comes."""
        gone, self.front = self.front, Front()
        gone.lost = True
        self._supervisor._client_gone(gone)
        self.handle(requests.Turns())

    def job(self, job_id: str) -> Job | None:
        live = self._supervisor.jobs.get(job_id)
        return live.job if live is not None else self._journal.find(job_id)

    def waiting(self) -> set[str]:
        found = {entry.id for entry, *_ in self._journal.waiting()}
        return {one for one in found if (job := self.job(one)) and job.state is State.PENDING}

    def check(self) -> None:
        """Every job that was asked for is somewhere, and each only in one place."""
        assert not self.wrong
        named = {(one.owner, one.name) for one in self.asked_for.values() if one.name}
        assert all(len(self.holders(*both)) <= 1 for both in named)
        for job_id in self.asked_for:
            job = self.job(job_id)
            if job is None:
                # Its start could not wait, and was refused.
                assert job_id not in self.starts
                continue
            if job_id in self.engine.running:
                assert job.state in (State.STARTING, State.RUNNING)
            elif job_id in self.starts:
                assert job.state is State.ENDED or (job.state is State.PENDING and job.attempts)
                assert job.state is State.PENDING or _is_over(job, job_id in self.stopped)
            elif job.state is not State.PENDING:
                assert job.reason in (Reason.STOPPED, Reason.REFUSED, Reason.DEPENDENCY_FAILED)
                hopeless = job.reason is Reason.DEPENDENCY_FAILED
                waiting = self.asked_for[job_id].waiting
                ended = [
                    one for other in waiting.after if (one := self.job(other)) and one.ended_ns
                ]
                assert not hopeless or not all(_fits(one, waiting.outcome) for one in ended)
        assert len(self._supervisor.pending) == len(self.waiting())


@contextmanager
def clock() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=Clock) as runner:
        yield runner


def _may_be_anew(job: Job) -> bool:
    """Whether what is known of its attempts lets there be another."""
    how = job.request.restart
    for before in job.attempts:
        lost = before.reason is Reason.LOST
        failed = before.exit_status != 0
        wanted = how.persist if lost else how.when is RestartWhen.ALWAYS
        wanted = wanted or (failed and how.when is RestartWhen.ON_FAILURE and not lost)
        if not wanted or before.failures > how.most or before.exit_status in how.final:
            return False
    return True


def _is_over(job: Job, stopped: bool) -> bool:
    """Whether a job that has begun has ended as it should."""
    how = job.request.restart
    if stopped or job.reason in (Reason.REFUSED, Reason.STOPPED) or job.detail.count("in a row"):
        return True
    if job.reason is Reason.LOST:
        return not how.persist
    well = job.exit_status == 0 and how.when is not RestartWhen.ALWAYS
    return well or how.when is RestartWhen.NEVER or job.exit_status in how.final


def _fits(job: Job | None, outcome: AfterOutcome) -> bool:
    """Whether who comes after this job, if it had that outcome, may begin."""
    if job is None or job.state is not State.ENDED:
        return False
    well = job.reason is Reason.EXITED and job.exit_status == 0
    return outcome is AfterOutcome.ANY or well == (outcome is not AfterOutcome.FAIL)
