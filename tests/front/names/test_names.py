"""Jobs by name, by a part of their ID, and as @last: one's own, others', and hidden ones."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server, running_server

# carol may stop her jobs, and not see them.
USERS = (("alice", "team-a"), ("bob", "team-b"), ("ann", "audit"), ("carol", "team-c"))
BLIND = POLICY + "  - {deny: read, to: cn:carol, jobs: '*/*'}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("names")
    with running_server(directory, USERS, BLIND) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as stub:
        yield stub


@pytest.fixture
def bob(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "bob") as stub:
        yield stub


def found(worker: WorkerServiceStub, job: str) -> str:
    return str(worker.QueryStatus(pb.QueryStatusRequest(jobID=job)).jobID)


def stop(worker: WorkerServiceStub, job: str) -> None:
    worker.Stop(pb.StopRequest(jobID=job, graceSeconds=0.01))


def test_a_name_is_the_one_that_goes_on_else_the_newest(alice: WorkerServiceStub) -> None:
    first = start(alice, "true", name="nightly")
    wait(alice, first)
    second = start(alice, "sleep", "1000", name="nightly")
    later = start(alice, "true")
    assert found(alice, "nightly") == second
    assert found(alice, "@last") == later
    stop(alice, "nightly")
    assert found(alice, "nightly") == second
    third = start(alice, "true", name="nightly")
    wait(alice, "nightly")
    assert found(alice, "nightly") == found(alice, "@last") == third
    alice.Remove(pb.RemoveRequest(jobID="nightly"))
    assert found(alice, "nightly") == second


def test_a_name_is_anothers_only_once_its_job_has_ended(
    alice: WorkerServiceStub, bob: WorkerServiceStub
) -> None:
    job = start(alice, "sleep", "1000", name="only", requestID="one")
    with refused(grpc.StatusCode.ALREADY_EXISTS) as words:
        start(alice, "true", name="only")
    assert words[0].startswith(f"your job {job} has the name only and has not ended")
    asked = pb.CanIRequest(action="start", start=pb.StartRequest(commandName="true", name="only"))
    assert alice.CanI(asked).reason == words[0]
    # The same start is the same job, and another's name is another.
    assert start(alice, "sleep", "1000", name="only", requestID="one") == job
    with refused(grpc.StatusCode.ALREADY_EXISTS) as words:
        start(alice, "sleep", "1000", name="other", requestID="one")
    assert "with another name" in words[0]
    bobs = start(bob, "sleep", "1000", name="only")
    assert bobs != job
    for worker in (alice, bob):
        stop(worker, "only")
    assert start(alice, "true", name="only") not in (job, bobs)


def test_a_program_that_cannot_be_executed_leaves_its_name_free(alice: WorkerServiceStub) -> None:
    for _ in range(3):
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            start(alice, "/no/such/program", name="fails")
    start(alice, "true", name="fails")


def test_names_and_ids_are_never_taken_for_each_other(alice: WorkerServiceStub) -> None:
    for name in (
        "beef",
        "a",
        "dead-beef",
        "1st",
        "-x",
        "x" * 65,
        "a/b",
        "a b",
        "é",
        "@last",
        "x\n",
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            start(alice, "true", name=name)
        assert words[0].endswith("(name)")
    for name in ("z", "beef.1", "Z" * 64, "a_b"):
        job = start(alice, "true", name=name)
        assert found(alice, name) == job


def test_others_jobs_by_owner_and_name(server: Server, alice: WorkerServiceStub) -> None:
    job = start(alice, "true", name="report")
    with calling(server, "ann") as ann:
        assert found(ann, "alice/report") == job
        for unknown in (
            "report",
            "alice/other",
            "/report",
            "alice/",
            "x/alice/report",
            "alice/@last",
        ):
            with refused(grpc.StatusCode.NOT_FOUND):
                found(ann, unknown)
    assert found(alice, "alice/report") == job


def test_a_hidden_name_and_an_unknown_one_are_answered_alike(
    alice: WorkerServiceStub, bob: WorkerServiceStub
) -> None:
    start(alice, "sleep", "1000", name="secret")
    for method, request in (
        (bob.QueryStatus, pb.QueryStatusRequest),
        (bob.Stop, pb.StopRequest),
        (bob.Signal, partial(pb.SignalRequest, signal=9)),
        (bob.Wait, pb.WaitRequest),
        (bob.Remove, pb.RemoveRequest),
        (bob.Pause, pb.PauseRequest),
        (lambda asked: list(bob.GetOutput(asked)), pb.GetOutputRequest),
        (lambda asked: list(bob.Input(iter([asked]))), pb.InputRequest),
    ):
        told = []
        for name in ("alice/secret", "alice/nosuch", "nobody/secret"):
            with refused(grpc.StatusCode.NOT_FOUND) as words:
                method(request(jobID=name))
            told.append(words[0].replace(name, "NAME"))
        assert set(told) == {"there is no job 'NAME', or it is not yours to see"}
    can = [
        bob.CanI(pb.CanIRequest(action="stop", jobID=name)).reason.replace(name, "NAME")
        for name in ("alice/secret", "alice/nosuch")
    ]
    assert can[0] == can[1]
    stop(alice, "secret")


def test_who_may_stop_a_job_may_do_so_by_its_name(server: Server) -> None:
    """As by its ID: that they may not see it is no matter."""
    with calling(server, "carol") as carol:
        start(carol, "sleep", "1000", name="blind")
        with refused(grpc.StatusCode.NOT_FOUND):
            found(carol, "blind")
        stop(carol, "blind")


def test_an_ending_of_an_id_is_enough(alice: WorkerServiceStub, bob: WorkerServiceStub) -> None:
    job = start(alice, "true")
    for length in (8, 12, 13, 35):
        assert found(alice, job[-length:]) == job
        with refused(grpc.StatusCode.NOT_FOUND):
            found(bob, job[-length:])
    with refused(grpc.StatusCode.NOT_FOUND):
        found(alice, job[-3:])


def test_who_asks_by_a_name_is_told_the_id_at_once(alice: WorkerServiceStub) -> None:
    """So that a broken connection is gone on with for the same job."""
    job = start(alice, "sleep", "1000", name="told")
    for call in (
        alice.GetOutput(pb.GetOutputRequest(jobID="told")),
        alice.Input(iter([pb.InputRequest(jobID="@last")])),
    ):
        assert ("jobworker-job-id", job) in list(call.initial_metadata())
        call.cancel()
    # What a unary call has received is known when it has ended, and then in any case.
    with pytest.raises(grpc.RpcError) as caught:
        alice.Wait(pb.WaitRequest(jobID=job[-8:]), timeout=2)
    assert ("jobworker-job-id", job) in list(caught.value.initial_metadata())
    _, call = alice.QueryStatus.with_call(pb.QueryStatusRequest(jobID=job))
    assert "jobworker-job-id" not in dict(call.initial_metadata())
    stop(alice, "told")


def test_a_job_is_told_as_well_however_it_is_called(bob: WorkerServiceStub) -> None:
    """By its name it was told as in a list, of which a long command is cut."""
    job = start(bob, "sleep", "1000", *["0"] * 2000, name="long")
    for called in (job, "long", "@last", job[:-1], job[-12:]):
        told = bob.QueryStatus(pb.QueryStatusRequest(jobID=called))
        assert (told.jobID, told.argumentsCut, len(told.Arguments)) == (job, False, 2001)
    stop(bob, "long")
