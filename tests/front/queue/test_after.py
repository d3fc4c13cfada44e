"""Jobs that come after others, over the wire and on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import kill
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server
from tests.support.waiting import until

GATE = "until [ -e {0} ]; do sleep 0.05; done; exit {1}"
OK, ANY, FAIL = pb.AFTER_OUTCOME_OK, pb.AFTER_OUTCOME_ANY, pb.AFTER_OUTCOME_FAIL


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


def state(worker: WorkerServiceStub, job: str) -> str:
    found = worker.QueryStatus(pb.QueryStatusRequest(jobID=job))
    return pb.JobState.Name(found.state).removeprefix("JOB_STATE_").lower()


@pytest.mark.parametrize(
    ("code", "outcome", "runs"),
    [
        (0, OK, True),
        (3, OK, False),
        (0, FAIL, False),
        (3, FAIL, True),
        (3, ANY, True),
        (0, 0, True),
    ],
)
def test_how_the_one_before_ends_decides(
    alice: WorkerServiceStub,
    tmp_path: Path,
    code: int,
    outcome: int,
    runs: bool,
) -> None:
    gate = tmp_path / "open"
    first = start(alice, "sh", "-c", GATE.format(gate, code))
    second = start(alice, "true", after=[first], afterOutcome=outcome)
    assert state(alice, second) == "pending"
    told = alice.QueryStatus(pb.QueryStatusRequest(jobID=second))
    assert told.detail == f"it comes after job {first}, which has not ended"
    assert list(told.request.after) == [first]
    gate.touch()
    ended = wait(alice, second)
    if runs:
        assert (ended.endReason, ended.exitCode) == (pb.END_REASON_EXITED, 0)
    else:
        assert (ended.endReason, ended.exitCode) == (pb.END_REASON_DEPENDENCY_FAILED, 125)
        assert first in ended.detail
    # Of one that has ended already it is known at once.
    later = wait(alice, start(alice, "true", after=[first], afterOutcome=outcome))
    assert later.endReason == ended.endReason


def test_what_waits_survives_any_process(
    fresh_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gate = tmp_path_factory.mktemp("gate") / "open"
    with calling(fresh_server, "alice") as alice:
        first = start(alice, "sh", "-c", GATE.format(gate, 0))
        second = start(alice, "true", after=[first])
        third = start(alice, "true", after=[second])
        for victim in ("supervisor", "front", "supervisor"):
            kill(fresh_server, victim)
            until(lambda: _answers(alice, third))
        gate.touch()
        assert wait(alice, third).exitCode == 0


def _answers(worker: WorkerServiceStub, job: str) -> bool:
    try:
        return state(worker, job) == "pending"
    except grpc.RpcError:
        return False


def test_stopping_one_ends_who_comes_after(alice: WorkerServiceStub) -> None:
    first = start(alice, "sleep", "1000")
    second, third = (start(alice, "true", after=[first]) for _ in range(2))
    fourth = start(alice, "true", after=[second])
    alice.Stop(pb.StopRequest(jobID=third))
    assert wait(alice, third).endReason == pb.END_REASON_STOPPED
    alice.Stop(pb.StopRequest(jobID=first, graceSeconds=0))
    assert wait(alice, second).endReason == pb.END_REASON_DEPENDENCY_FAILED
    assert wait(alice, fourth).endReason == pb.END_REASON_DEPENDENCY_FAILED


def test_one_comes_after_what_one_may_see(server: Server, alice: WorkerServiceStub) -> None:
    hers = start(alice, "true", name="hers")
    for called in (hers, "alice/hers", "0" * 8 + hers[8:], "no-such"):
        with calling(server, "bob") as bob, refused(grpc.StatusCode.NOT_FOUND) as told:
            start(bob, "true", after=[called])
        assert "or it is not yours to see" in told[0]
        asked = pb.CanIRequest(
            action="start", start=pb.StartRequest(commandName="true", after=[called])
        )
        with calling(server, "bob") as bob:
            assert not bob.CanI(asked).allowed
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        start(alice, "true", afterOutcome=FAIL)
    # They are counted before any is looked for.
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        start(alice, "true", after=["no-such"] * 1001)
    assert "1001 jobs to come after are more than 1000 (after)" in told[0]


def test_the_command(server: Server) -> None:
    first = server.ask("alice", "start", "--name", "first", "--", "sleep", "1000")
    words = ("--after", "first", "--on", "any", "--", "sh", "-c", "exit 4")
    second = server.ask("alice", "start", *words)
    told = json.loads(server.ask("alice", "status", "-o", "json", second))
    assert (told["state"], told["after"], told["after_outcome"]) == ("pending", [first], "any")
    third = server.ask("alice", "start", "--after", second, "--", "true")
    server.ask("alice", "stop", first)
    assert server.run("alice", "wait", second).returncode == 4
    assert server.run("alice", "wait", third).returncode == 125
    shown = server.ask("alice", "status", third)
    assert "ended: not started, for how another job ended" in shown
    assert f"Detail:    job {second} exited with 4" in shown
    done = server.run("alice", "run", "--after", second, "--", "true")
    assert done.returncode == 125
    assert b"not started, for how another job ended" in done.stderr


def test_repeating_a_start_is_one_job(alice: WorkerServiceStub) -> None:
    first = start(alice, "sleep", "1000")
    jobs = {start(alice, "true", after=[first], requestID="again") for _ in range(2)}
    assert len(jobs) == 1
    with refused(grpc.StatusCode.ALREADY_EXISTS) as told:
        start(alice, "true", after=[first, jobs.pop()], requestID="again")
    assert "queue" in told[0]
    alice.Stop(pb.StopRequest(jobID=first, graceSeconds=0))
