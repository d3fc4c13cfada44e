"""Jobs that wait for their turn, over the wire: in order, within bounds, by their rights then."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.front.admin.test_admin import admin, audited
from tests.support.chaos import kill
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

SETTINGS = "quotas: {user: {running: 2}}\naudit: {directory: audit}\n"
AS_ROOT = "users: {jobs_run_as_root: true}, " if os.geteuid() == 0 else ""
DENIED = '  - {deny: start, to: "cn:bob", jobs: "*/*", command: "true"}\n'
QUEUES = f"jobs: {{{AS_ROOT}queues: {{narrow: {{parallel: 1}}}}}}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("queue")
    with running_server(directory, USERS, POLICY, SETTINGS + QUEUES) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker
        stop_all(worker)


@pytest.fixture
def bob(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "bob") as worker:
        yield worker
        stop_all(worker)


def stop_all(worker: WorkerServiceStub) -> None:
    """Those that wait first, so that none begins."""
    for job in worker.List(pb.ListRequest(running=True, owner=owner_of(worker))).jobs:
        worker.Stop(pb.StopRequest(jobID=job.jobID, graceSeconds=0))


def owner_of(worker: WorkerServiceStub) -> str:
    return str(worker.WhoAmI(pb.WhoAmIRequest()).commonName)


def queued(worker: WorkerServiceStub, *argv: str, queue: str = "default", **fields: object) -> str:
    return start(worker, *(argv or ("sleep", "1000")), queue=queue, **fields)


def state(worker: WorkerServiceStub, job: str) -> str:
    """As it is told: its state, and of one that has ended why."""
    status = worker.QueryStatus(pb.QueryStatusRequest(jobID=job))
    if status.state == pb.JOB_STATE_ENDED:
        return pb.EndReason.Name(status.endReason).removeprefix("END_REASON_")
    return pb.JobState.Name(status.state).removeprefix("JOB_STATE_")


def words(worker: WorkerServiceStub, job: str) -> str:
    return str(worker.QueryStatus(pb.QueryStatusRequest(jobID=job)).detail)


def test_it_waits_says_for_what_and_has_its_turn(alice: WorkerServiceStub) -> None:
    first, second = queued(alice), queued(alice)
    asked = pb.StartRequest(commandName="sh", Arguments=["-c", "echo hi; exit 3"], queue="default")
    answer = alice.Start(asked)
    third, fourth = answer.jobID, queued(alice, "true")
    assert answer.success
    assert "the quota running of the user alice is reached" in answer.message
    assert [state(alice, job) for job in (first, second, third, fourth)] == [
        *("RUNNING", "RUNNING", "PENDING", "PENDING")
    ]
    assert words(alice, fourth).endswith("; 1 of yours is before it")
    # A first-generation client sees one that has not ended.
    assert alice.QueryStatus(pb.QueryStatusRequest(jobID=third)).JobStatus == pb.RUNNING
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        start(alice, "true")
    alice.Stop(pb.StopRequest(jobID=first))
    assert wait(alice, third).exitCode == 3
    assert output(alice, third) == b"hi\n"
    assert wait(alice, fourth).exitCode == 0


def test_what_waits_takes_nothing_yet(alice: WorkerServiceStub) -> None:
    queued(alice), queued(alice)
    job = queued(alice, "cat", input=pb.INPUT_MODE_OPEN)
    for call in (
        lambda: alice.Signal(pb.SignalRequest(jobID=job, signal=15)),
        lambda: alice.Pause(pb.PauseRequest(jobID=job)),
        lambda: list(alice.Input(iter([pb.InputRequest(jobID=job, data=b"x")]))),
        lambda: alice.Remove(pb.RemoveRequest(jobID=job)),
    ):
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            call()
    assert output(alice, job, noFollow=True) == b""
    alice.Stop(pb.StopRequest(jobID=job))
    ended = wait(alice, job)
    assert (state(alice, job), ended.exitCode, ended.outputComplete) == ("STOPPED", 125, True)
    assert output(alice, job) == b""
    alice.Remove(pb.RemoveRequest(jobID=job))


def test_a_named_queue_and_who_is_next_in_it(alice: WorkerServiceStub) -> None:
    first = queued(alice, queue="narrow")
    late = queued(alice, "true", queue="narrow")
    early = queued(alice, "true", queue="narrow", priority=5)
    assert words(alice, early) == "1 of 1 run in the queue narrow"
    # Its own bound holds up nobody else's turn.
    assert wait(alice, queued(alice, "true")).exitCode == 0
    alice.Stop(pb.StopRequest(jobID=first))
    one, other = wait(alice, early), wait(alice, late)
    assert one.createdAt.ToNanoseconds() < other.createdAt.ToNanoseconds()
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        queued(alice, queue="wide")
    assert "there is no queue 'wide': they are default, narrow (queue)" in said[0]
    for fields, field in (
        ({"queue": "9"}, "queue"),
        ({"queue": "default", "priority": 1001}, "priority"),
        ({"queue": "", "priority": 1}, "priority"),
        ({"queue": "", "queueTimeoutSeconds": 1}, "queueTimeoutSeconds"),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
            queued(alice, **fields)
        assert f"({field})" in said[0]


def test_it_waits_no_longer_than_it_is_to(alice: WorkerServiceStub) -> None:
    queued(alice), queued(alice)
    job = queued(alice, queueTimeoutSeconds=0.2)
    assert wait(alice, job).exitCode == 125
    assert (state(alice, job), words(alice, job)) == ("QUEUE_TIMEOUT", "it waited for 0.2 s")


def test_a_program_that_is_not_there_is_found_out_then(alice: WorkerServiceStub) -> None:
    first = queued(alice)
    queued(alice)
    job = queued(alice, "no-such-program")
    alice.Stop(pb.StopRequest(jobID=first))
    assert wait(alice, job).exitCode == 127
    assert (state(alice, job), "ENOENT" in words(alice, job)) == ("CANNOT_START", True)


def test_one_tenant_does_not_hold_up_another(
    alice: WorkerServiceStub, bob: WorkerServiceStub
) -> None:
    for _ in range(5):
        queued(alice)
    assert wait(bob, queued(bob, "true")).exitCode == 0


def test_whoever_is_killed_it_waits_on(server: Server) -> None:
    with calling(server, "alice") as alice:
        first, second = queued(alice), queued(alice)
        waiting = [queued(alice, "true") for _ in range(3)]
        for process in ("supervisor", "front"):
            kill(server, process)
    with calling(server, "alice") as alice:
        listed = alice.List(pb.ListRequest(running=True), wait_for_ready=True).jobs
        assert {job.jobID for job in listed} == {first, second, *waiting}
        assert {state(alice, job) for job in waiting} == {"PENDING"}
        alice.Stop(pb.StopRequest(jobID=second))
        assert [wait(alice, job).exitCode for job in waiting] == [0, 0, 0]
        stop_all(alice)


def test_while_the_server_is_drained_it_waits(server: Server, alice: WorkerServiceStub) -> None:
    admin(server, "drain", "new disks")
    try:
        job = queued(alice, "true")
        assert state(alice, job) == "PENDING"
        until(lambda: "new disks" in words(alice, job))
    finally:
        admin(server, "drain", "--off")
    assert wait(alice, job).exitCode == 0


def test_the_policy_is_asked_again(server: Server, bob: WorkerServiceStub) -> None:
    """What it refuses by then ends, and says so; that is in the audit log."""
    policy = server.directory / "policy.yaml"
    first, *_, third = queued(bob), queued(bob), queued(bob, "true")
    policy.write_text(POLICY + DENIED)
    try:
        asked = pb.StartRequest(commandName="true", queue="default")
        can_i = pb.CanIRequest(action="start", start=asked)
        until(lambda: not bob.CanI(can_i).allowed)
        bob.Stop(pb.StopRequest(jobID=first))
        assert wait(bob, third).endReason == pb.END_REASON_REFUSED
        assert "start refused to cn=bob" in words(bob, third)
    finally:
        policy.write_text(POLICY)
    record = [one for one in audited(server, "start") if one["job"] == third]
    at_its_turn = [(one["allowed"], one["peer"] == "queue") for one in record]
    assert at_its_turn == [(True, False), (False, True)]


def test_what_a_revoked_certificate_asked_for_is_not_started(tmp_path: Path) -> None:
    """Whoever took it back had taken nothing back of what waited."""
    with running_server(tmp_path, USERS, POLICY, SETTINGS + QUEUES) as server:
        with calling(server, "alice") as alice:
            first, *_ = (queued(alice) for _ in range(3))
        server.authority.revoke(server.users["alice"])
        server.authority.write_crl(server.authority.certificate.with_suffix(".crl"))
        until(lambda: server.run("alice", "whoami").returncode != 0)
        admin(server, "stop", first)
        until(lambda: "refused when its turn came" in admin(server, "list"))
        assert "was revoked" in admin(server, "list", "-o", "json")


def test_can_i_says_that_it_would_wait(alice: WorkerServiceStub) -> None:
    queued(alice), queued(alice)
    asked = pb.StartRequest(commandName="true")
    assert not alice.CanI(pb.CanIRequest(action="start", start=asked)).allowed
    asked.queue = "default"
    assert alice.CanI(pb.CanIRequest(action="start", start=asked)).allowed
    asked.queue = "wide"
    answer = alice.CanI(pb.CanIRequest(action="start", start=asked))
    assert (answer.allowed, "no queue 'wide'" in answer.reason) == (False, True)
