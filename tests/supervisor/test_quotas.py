"""Quotas of users and tenants: named when reached, and held to whatever happens."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY
from tests.front.test_front_killed import front_of
from tests.support.chaos import persist, services
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server, running_server

USERS = (("alice", "team-a"), ("dana", "team-a"), ("bob", "team-b"))
CALLERS = 16
RUNNING = 5


@contextmanager
def limited(directory: Path, quotas: str) -> Iterator[Server]:
    """A server with these quotas."""
    with running_server(directory, USERS, POLICY, f"quotas: {quotas}\n") as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server where a user may run RUNNING jobs, and all of a tenant one more."""
    with limited(
        tmp_path, f"{{user: {{running: {RUNNING}}}, tenant: {{running: {RUNNING + 1}}}}}"
    ) as running:
        yield running


def sleeping(worker: WorkerServiceStub) -> str:
    return start(worker, "sleep", "1000")


def quota_in(error: grpc.RpcError) -> str:
    """Which quota a refusal names for programs."""
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    trailers = dict(error.trailing_metadata())
    info = ErrorInfo()
    assert Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    assert info.reason == "QUOTA_REACHED"
    return str(info.metadata["quota"])


def running(worker: WorkerServiceStub) -> int:
    return len(worker.List(pb.ListRequest(running=True)).jobs)


def stop_all(worker: WorkerServiceStub) -> None:
    for job in worker.List(pb.ListRequest(running=True)).jobs:
        worker.Stop(pb.StopRequest(jobID=job.jobID, graceSeconds=0))


def test_running_jobs_of_a_user_and_of_a_tenant(server: Server) -> None:
    with calling(server, "alice") as alice, calling(server, "dana") as dana:
        jobs = [sleeping(alice) for _ in range(RUNNING)]
        with pytest.raises(grpc.RpcError) as caught:
            sleeping(alice)
        assert quota_in(caught.value) == "user/alice/running"
        assert caught.value.details() == (
            "the quota running of the user alice is reached: "
            "5 jobs run of 5 allowed; stop one, or wait for its end"
        )
        sleeping(dana)
        with pytest.raises(grpc.RpcError) as caught:
            sleeping(dana)
        assert quota_in(caught.value) == "tenant/team-a/running"
        with calling(server, "bob") as bob:
            stop_all_of = sleeping(bob)
            bob.Stop(pb.StopRequest(jobID=stop_all_of))
        alice.Stop(pb.StopRequest(jobID=jobs[0]))
        sleeping(dana)
        stop_all(alice)
        stop_all(dana)


def test_the_command_says_so(tmp_path: Path) -> None:
    with limited(tmp_path, "{users: {alice: {running: 1}}}") as server:
        server.ask("alice", "start", "sleep", "1000")
        done = server.run("alice", "start", "true")
        assert done.returncode == 6
        assert b"the quota running of the user alice is reached" in done.stderr
        assert server.run("dana", "run", "true").returncode == 0


def test_callers_at_once_do_not_exceed_it(server: Server) -> None:
    together = threading.Barrier(CALLERS)

    def attempt(worker: WorkerServiceStub) -> str:
        together.wait()
        try:
            sleeping(worker)
        except grpc.RpcError as error:
            return quota_in(error)
        return "started"

    with calling(server, "alice") as alice, ThreadPoolExecutor(CALLERS) as pool:
        for _ in range(5):
            outcomes = Counter(pool.map(attempt, [alice] * CALLERS))
            assert outcomes == {"started": RUNNING, "user/alice/running": CALLERS - RUNNING}
            assert running(alice) == RUNNING
            stop_all(alice)


def test_a_repeated_request_is_no_other_job(server: Server) -> None:
    with calling(server, "alice") as alice:
        fields = [f"key-{number}" for number in range(RUNNING)]
        jobs = [start(alice, "sleep", "1000", requestID=key) for key in fields]
        assert [start(alice, "sleep", "1000", requestID=key) for key in fields] == jobs
        stop_all(alice)


def test_a_program_that_cannot_be_executed_takes_no_room(server: Server) -> None:
    with calling(server, "alice") as alice:
        for _ in range(2 * RUNNING):
            with refused(grpc.StatusCode.FAILED_PRECONDITION):
                start(alice, "/no/such/program")
        wait(alice, start(alice, "true"))


@pytest.mark.parametrize("victim", ["front", "supervisor"])
def test_it_holds_when_a_process_of_the_service_is_killed(server: Server, victim: str) -> None:
    with calling(server, "alice") as alice:
        jobs = [sleeping(alice) for _ in range(RUNNING)]
        if victim == "front":
            front_of(server).send_signal(signal.SIGKILL)
        else:
            (supervisor,) = (one for one in services(server) if one.pid != front_of(server).pid)
            supervisor.send_signal(signal.SIGKILL)
        assert persist(lambda: running(alice)) == RUNNING
        with pytest.raises(grpc.RpcError) as caught:
            sleeping(alice)
        assert quota_in(caught.value) == "user/alice/running"
        alice.Stop(pb.StopRequest(jobID=jobs[0]))
        sleeping(alice)
        stop_all(alice)


def test_starts_within_a_minute(tmp_path: Path) -> None:
    with (
        limited(tmp_path, "{tenants: {team-a: {starts_per_minute: 3}}}") as server,
        calling(server, "alice") as alice,
        calling(server, "dana") as dana,
    ):
        for worker in (alice, dana, alice):
            wait(worker, start(worker, "true"))
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                start(dana, "true")
            assert quota_in(caught.value) == "tenant/team-a/starts_per_minute"
        assert "try again in" in caught.value.details()
        (supervisor,) = (one for one in services(server) if one.pid != front_of(server).pid)
        supervisor.send_signal(signal.SIGKILL)
        persist(lambda: running(alice))
        with pytest.raises(grpc.RpcError) as caught:
            start(alice, "true")
        assert quota_in(caught.value) == "tenant/team-a/starts_per_minute"


def test_output_kept(tmp_path: Path) -> None:
    with (
        limited(tmp_path, "{user: {output_bytes: 1000000}}") as server,
        calling(server, "alice") as alice,
    ):
        ended = start(alice, "head", "-c", "600000", "/dev/zero")
        wait(alice, ended)
        goes_on = start(alice, "sh", "-c", "head -c 600000 /dev/zero; exec sleep 1000")
        stream = alice.GetOutput(pb.GetOutputRequest(jobID=goes_on, raw=True))
        received = 0
        while received < 600_000:
            received += len(next(stream).data)
        with pytest.raises(grpc.RpcError) as caught:
            start(alice, "true")
        assert quota_in(caught.value) == "user/alice/output_bytes"
        assert "1200000 bytes of output are kept of 1000000 allowed" in caught.value.details()
        (supervisor,) = (one for one in services(server) if one.pid != front_of(server).pid)
        supervisor.send_signal(signal.SIGKILL)
        persist(lambda: running(alice))
        with pytest.raises(grpc.RpcError) as caught:
            start(alice, "true")
        assert quota_in(caught.value) == "user/alice/output_bytes"
        alice.Remove(pb.RemoveRequest(jobID=ended))
        wait(alice, start(alice, "true"))
        alice.Stop(pb.StopRequest(jobID=goes_on))


@pytest.mark.parametrize("kind", ["user", "tenant"])
@pytest.mark.parametrize("quota", ["running", "starts_per_minute", "output_bytes"])
def test_each_quota_is_named_when_it_is_reached(tmp_path: Path, kind: str, quota: str) -> None:
    with (
        limited(tmp_path, f"{{{kind}: {{{quota}: 1}}}}") as server,
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
    ):
        wanted = {"user": "alice", "tenant": "team-a"}[kind]
        job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
        assert next(alice.GetOutput(pb.GetOutputRequest(jobID=job_id))).output == "on\n"
        with pytest.raises(grpc.RpcError) as caught:
            start(alice, "true")
        assert quota_in(caught.value) == f"{kind}/{wanted}/{quota}"
        assert f"the quota {quota} of the {kind} {wanted} is reached" in caught.value.details()
        # Others have their own.
        wait(bob, start(bob, "true"))
        alice.Stop(pb.StopRequest(jobID=job_id))
