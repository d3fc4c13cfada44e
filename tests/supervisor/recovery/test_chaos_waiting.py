"""Jobs that wait for their turn, or for others, while the service is killed at random."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.chaos import Killer, persist
from tests.support.client import calling
from tests.support.server import Server, running_server

CALLERS = 8
PARALLEL = 6
SCRIPT = 'echo ran >> "$2/$1"; sleep 0.05; exit $(($1 % 3))'
AS_ROOT = "users: {jobs_run_as_root: true}, " if os.geteuid() == 0 else ""


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Server]:
    """A server at which few run at once."""
    queues = f"jobs: {{{AS_ROOT}queues: {{default: {{parallel: {PARALLEL}}}}}}}\n"
    with running_server(tmp_path, USERS, POLICY, queues) as up:
        yield up


def submit(worker: WorkerServiceStub, number: int, ran: Path, after: str) -> str:
    """Every job of a chain comes after the one before, however that ended."""
    request = pb.StartRequest(
        commandName="sh",
        Arguments=["-c", SCRIPT, "sh", str(number), str(ran)],
        requestID=f"wait-{number}",
        queue="default",
        after=[after] if after else [],
        afterOutcome=pb.AFTER_OUTCOME_ANY if after else 0,
        priority=number % 3,
    )
    return str(persist(lambda: worker.Start(request, wait_for_ready=True, timeout=60)).jobID)


def check(worker: WorkerServiceStub, number: int, job: str, ran: Path) -> pb.QueryStatusResponse:
    ended = persist(lambda: worker.Wait(pb.WaitRequest(jobID=job), wait_for_ready=True))
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, number % 3), ended
    assert (ran / str(number)).read_text() == "ran\n", "the job ran more than once"
    return ended


def one_chain(worker: WorkerServiceStub, numbers: range, ran: Path) -> None:
    jobs: list[str] = []
    for number in numbers:
        jobs.append(submit(worker, number, ran, jobs[-1] if number % 4 else ""))
    before = None
    for number, job in zip(numbers, jobs, strict=True):
        ended = check(worker, number, job, ran)
        if number % 4 and before is not None:
            assert before.endedAt.ToNanoseconds() <= ended.createdAt.ToNanoseconds()
        before = ended


def survive(server: Server, killer: Killer, each: int) -> None:
    ran = server.directory / "ran"
    ran.mkdir()
    with calling(server, "alice") as worker, ThreadPoolExecutor(CALLERS) as pool:
        killer.start()
        try:
            chains = [range(n * each, (n + 1) * each) for n in range(CALLERS)]
            for done in [pool.submit(one_chain, worker, chain, ran) for chain in chains]:
                done.result()
        finally:
            killer.end()
    assert len(list(ran.iterdir())) == each * CALLERS
    print(f"{each * CALLERS} jobs, struck: {killer.kills}")


@pytest.mark.timeout(300)
def test_a_few_kills_while_jobs_wait(narrow: Server) -> None:
    survive(narrow, Killer(narrow, kills=8, pause=(0.1, 0.6)), each=12)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_hundred_kills_while_a_thousand_wait(narrow: Server) -> None:
    survive(narrow, Killer(narrow, kills=100, pause=(0.05, 1.0)), each=128)
