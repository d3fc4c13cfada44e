"""Jobs that wait for their turn, for others, or for their next attempt; the service is killed."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.chaos import Killer, persist
from tests.support.client import calling, output
from tests.support.server import Server, running_server

CALLERS = 8
PARALLEL = 6
SCRIPT = 'echo ran >> "$2/$1"; sleep 0.05; exit $(($1 % 3))'
# Notes each attempt, and says which it is; it does well in its fourth.
ATTEMPTS = 4
FAILING = """
echo ran >> "$1"
n=$(wc -l < "$1")
echo "attempt $n"
sleep 0.05
[ "$n" -ge 4 ]
"""
TOLD = "".join(f"attempt {number}\n" for number in range(1, ATTEMPTS + 1)).encode()
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


def one_that_is_started_again(worker: WorkerServiceStub, number: int, ran: Path) -> None:
    """Again and again: no attempt is lost, or begun twice, nor any of its output."""
    notes = ran / f"again-{number}"
    request = pb.StartRequest(
        commandName="sh",
        Arguments=["-c", FAILING, "sh", str(notes)],
        requestID=notes.name,
        restart=pb.RestartPolicy(when=pb.RESTART_WHEN_ON_FAILURE, delaySeconds=0.2),
    )
    job = persist(lambda: worker.Start(request, wait_for_ready=True, timeout=60)).jobID
    ended = persist(lambda: worker.Wait(pb.WaitRequest(jobID=job), wait_for_ready=True))
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, 0), ended
    assert [one.number for one in ended.attempts] == list(range(1, ATTEMPTS))
    assert {one.exitCode for one in ended.attempts} == {1}
    assert notes.read_text() == "ran\n" * ATTEMPTS
    assert persist(lambda: output(worker, job)) == TOLD


@contextmanager
def scheduled(server: Server, count: int) -> Iterator[None]:
    """So many schedules, each with a run a minute: what is on record has run, and that once."""
    ran = server.directory / "scheduled"
    ran.mkdir()
    names = [f"every-minute-{number}" for number in range(count)]

    def change(worker: WorkerServiceStub, name: str) -> None:
        asked = pb.ChangeScheduleRequest(name=name, change=pb.SCHEDULE_CHANGE_REMOVE)
        # The first try may have done it.
        with suppress_not_found():
            persist(lambda: worker.ChangeSchedule(asked, wait_for_ready=True, timeout=60))

    def runs(worker: WorkerServiceStub, name: str) -> list[pb.QueryStatusResponse]:
        asked = pb.ListRequest(labels={"schedule": name})
        return list(persist(lambda: worker.List(asked, wait_for_ready=True, timeout=60)).jobs)

    with calling(server, "bob") as worker:
        for name in names:
            start = pb.StartRequest(
                commandName="sh",
                Arguments=["-c", 'echo ran >> "$1"', "sh", str(ran / name)],
                labels={"schedule": name},
            )
            schedule = pb.Schedule(name=name, cron="* * * * *", timeZone="UTC", start=start)
            worker.AddSchedule(pb.AddScheduleRequest(schedule=schedule))
        yield
        for name in names:
            change(worker, name)
        for name in names:
            for one in runs(worker, name):
                asked = pb.WaitRequest(jobID=one.jobID)
                ended = persist(lambda asked=asked: worker.Wait(asked, wait_for_ready=True))
                assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, 0)
            count = len(runs(worker, name))
            assert count, "the test ran for less than a minute"
            assert (ran / name).read_text() == "ran\n" * count, name


@contextmanager
def suppress_not_found() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


def survive(server: Server, killer: Killer, each: int, again: int) -> None:
    ran = server.directory / "ran"
    ran.mkdir()
    with calling(server, "alice") as worker, ThreadPoolExecutor(2 * CALLERS) as pool:
        killer.start()
        try:
            chains = [range(n * each, (n + 1) * each) for n in range(CALLERS)]
            work = [pool.submit(one_chain, worker, chain, ran) for chain in chains]
            work += [
                pool.submit(one_that_is_started_again, worker, number, ran)
                for number in range(again)
            ]
            for done in work:
                done.result()
        finally:
            killer.end()
    assert len(list(ran.iterdir())) == each * CALLERS + again
    print(f"{each * CALLERS} jobs, {again} of {ATTEMPTS} attempts, struck: {killer.kills}")


@pytest.mark.timeout(300)
def test_a_few_kills_while_jobs_wait(narrow: Server) -> None:
    survive(narrow, Killer(narrow, kills=8, pause=(0.1, 0.6)), each=12, again=8)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_hundred_kills_while_a_thousand_wait(narrow: Server) -> None:
    with scheduled(narrow, 20):
        survive(narrow, Killer(narrow, kills=100, pause=(0.05, 1.0)), each=128, again=50)
