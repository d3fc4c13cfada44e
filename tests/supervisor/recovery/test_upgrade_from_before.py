"""A service of the first commit with rooms, upgraded to this tree under running jobs."""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.chaos import persist, pieces, services
from tests.support.client import calling, refused, start
from tests.support.installation import ROOT, Installation, checkout_of
from tests.support.server import (
    JOBWORKER,
    Server,
    configure,
    leaving_no_process,
    own_address,
    serving,
)
from tests.support.waiting import until

BEFORE = "c113538e67035946c8fdb48012ee9d7139700f01"
JOBS = 50
# Counts as long as its gate is closed, then ends with its number.
COUNTER = "i=0; while ! [ -e $1 ]; do echo $i; i=$((i + 1)); sleep 0.2; done; exit $2"


@dataclass(frozen=True)
class Before:
    """A server that runs the code of before, and what it imports that from."""

    server: Server
    installation: Installation


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Before]:
    installation = Installation(tmp_path / "path")
    installation.lead_to(checkout_of(BEFORE, tmp_path / "before"))
    host = own_address()
    authority = configure(tmp_path, host, POLICY, "")
    users = {name: authority.client(name, [tenant]) for name, tenant in USERS}
    with (
        leaving_no_process(),
        serving(tmp_path / "server.yaml", environment=installation.environment()) as served,
    ):
        yield Before(Server(tmp_path, host, authority, users, *served), installation)


def pids(server: Server) -> set[int]:
    return {process.pid for process in services(server)}


def upgrade(before: Before, *, by_command: bool) -> None:
    """Replace the code, then the service's processes; wait for the new ones."""
    old = pids(before.server)
    before.installation.lead_to(ROOT)
    if by_command:
        config = before.server.directory / "server.yaml"
        environment = before.installation.environment()
        command = [JOBWORKER, "serve", "--config", config, "--upgrade"]
        subprocess.run(command, env=environment, check=True)
    else:
        before.server.process.send_signal(signal.SIGHUP)
    until(lambda: len(pids(before.server)) == 2 and not old & pids(before.server))


@pytest.mark.parametrize("by_command", [False, True], ids=["SIGHUP", "serve --upgrade"])
def test_an_upgrade_from_before_keeps_the_jobs(before: Before, by_command: bool) -> None:
    server = before.server
    gate = server.directory / "gate"
    with calling(server, "alice") as worker:
        # A call that was not there yet.
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            worker.Rights(pb.RightsRequest())
        jobs = [start(worker, "sh", "-c", COUNTER, "sh", str(gate), str(n)) for n in range(JOBS)]
        begun = {job: worker.QueryStatus(pb.QueryStatusRequest(jobID=job)).pid for job in jobs}
        upgrade(before, by_command=by_command)
        running = persist(lambda: worker.List(pb.ListRequest(running=True), wait_for_ready=True))
        assert {job.jobID: job.pid for job in running.jobs} == begun
        assert persist(lambda: worker.Rights(pb.RightsRequest())).rights
        gate.touch()
        for number, job in enumerate(jobs):
            lines = b"".join(pieces(worker, job)).splitlines()
            assert [int(line) for line in lines] == list(range(len(lines)))
            ended = ended_job(worker, job)
            assert (ended.pid, ended.exitCode) == (begun[job], number)
            assert ended.endReason == pb.END_REASON_EXITED
        assert ended_job(worker, start(worker, "true")).exitCode == 0


def ended_job(worker: WorkerServiceStub, job: str) -> pb.QueryStatusResponse:
    return persist(lambda: worker.Wait(pb.WaitRequest(jobID=job)))
