"""Whether jobs are ready, who comes after that, and what happens to one that is not any more."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import kill
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server
from tests.support.waiting import until

# Takes connections at a free port, which it writes into a file, as long as another is there.
SERVER = """
import os, socket, sys, time
port, gate = sys.argv[1:3]
while not os.path.exists(gate):
    time.sleep(0.02)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(port)))
server.listen()
server.settimeout(0.02)
print("listens", flush=True)
while os.path.exists(gate):
    try:
        server.accept()[0].close()
    except TimeoutError:
        pass
server.close()
print("no more", flush=True)
time.sleep(1000)
"""
READY = pb.AFTER_OUTCOME_READY


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


@pytest.fixture
def port() -> int:
    """One that nobody has, most likely."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(worker: WorkerServiceStub, port: int, gate: Path, **fields: object) -> str:
    check = pb.HealthCheck(port=port, intervalSeconds=0.1, retries=2)
    argv = (sys.executable, "-SEc", SERVER, str(port), str(gate))
    return start(worker, *argv, **{"health": check, **fields})


def status(worker: WorkerServiceStub, job: str) -> pb.QueryStatusResponse:
    return worker.QueryStatus(pb.QueryStatusRequest(jobID=job))


def stop(worker: WorkerServiceStub, *jobs: str) -> None:
    for job in jobs:
        worker.Stop(pb.StopRequest(jobID=job, graceSeconds=0))


def test_it_is_ready_when_it_takes_connections(
    alice: WorkerServiceStub, tmp_path: Path, port: int
) -> None:
    gate = tmp_path / "gate"
    job = serve(alice, port, gate)
    later = start(alice, "true", after=[job], afterOutcome=READY)
    assert not status(alice, job).ready
    assert status(alice, later).detail == f"it comes after job {job}, which is not ready"
    gate.touch()
    assert wait(alice, later).exitCode == 0
    assert status(alice, job).ready
    # What is ready already is waited for by nobody.
    assert wait(alice, start(alice, "true", after=[job], afterOutcome=READY)).exitCode == 0
    stop(alice, job)
    ended = wait(alice, job)
    assert (ended.ready, ended.endReason) == (False, pb.END_REASON_STOPPED)
    late = wait(alice, start(alice, "true", after=[job], afterOutcome=READY))
    assert late.endReason == pb.END_REASON_DEPENDENCY_FAILED


def test_without_a_check_it_is_ready_as_long_as_it_runs(alice: WorkerServiceStub) -> None:
    job = start(alice, "sleep", "1000")
    assert status(alice, job).ready
    assert wait(alice, start(alice, "true", after=[job], afterOutcome=READY)).exitCode == 0
    stop(alice, job)
    # What did well was ready.
    done = start(alice, "true")
    wait(alice, done)
    assert wait(alice, start(alice, "true", after=[done], afterOutcome=READY)).exitCode == 0


def test_all_of_several_must_be_ready(alice: WorkerServiceStub, tmp_path: Path, port: int) -> None:
    gate = tmp_path / "gate"
    first, second = serve(alice, port, gate), start(alice, "sleep", "1000")
    last = start(alice, "true", after=[first, second], afterOutcome=READY)
    # One that was ready once may have ended by now.
    until(lambda: first in status(alice, last).detail)
    stop(alice, second)
    wait(alice, second)
    gate.touch()
    assert wait(alice, last).exitCode == 0
    stop(alice, first)


def test_one_that_takes_none_any_more_is_ended(
    alice: WorkerServiceStub, tmp_path: Path, port: int
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    how = pb.RestartPolicy(when=pb.RESTART_WHEN_ON_FAILURE, delaySeconds=0.05)
    job = serve(alice, port, gate, restart=how)
    until(lambda: status(alice, job).ready)
    gate.unlink()
    until(lambda: status(alice, job).attempt == 2)
    (before,) = status(alice, job).attempts
    assert before.endReason == pb.END_REASON_UNHEALTHY
    assert f"no process of job {job} listens at the TCP port {port}" in before.detail
    assert "2 times in a row" in before.detail
    gate.touch()
    until(lambda: status(alice, job).ready)
    stop(alice, job)
    wait(alice, job)
    assert output(alice, job) == b"listens\nno more\nlistens\n"


def test_one_that_is_never_ready_is_ended(
    alice: WorkerServiceStub, tmp_path: Path, port: int
) -> None:
    check = pb.HealthCheck(port=port, intervalSeconds=0.1, startSeconds=0.3)
    job = serve(alice, port, tmp_path / "never", health=check)
    later = start(alice, "true", after=[job], afterOutcome=READY)
    ended = wait(alice, job)
    assert (ended.endReason, ended.signal) == (pb.END_REASON_UNHEALTHY, 15)
    assert "not within 0.3 s" in ended.detail
    assert wait(alice, later).endReason == pb.END_REASON_DEPENDENCY_FAILED


def test_another_jobs_port_makes_none_ready(
    alice: WorkerServiceStub, tmp_path: Path, port: int
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    real = serve(alice, port, gate)
    until(lambda: status(alice, real).ready)
    check = pb.HealthCheck(port=port, intervalSeconds=0.1, startSeconds=0.3)
    other = start(alice, "sleep", "1000", health=check)
    assert wait(alice, other).endReason == pb.END_REASON_UNHEALTHY
    assert status(alice, real).ready
    stop(alice, real)


def test_a_paused_job_is_not_ended(alice: WorkerServiceStub, tmp_path: Path, port: int) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    job = serve(alice, port, gate)
    until(lambda: status(alice, job).ready)
    alice.Pause(pb.PauseRequest(jobID=job))
    gate.unlink()
    # As long as many checks would take, by another job's time.
    wait(alice, start(alice, "sleep", "1"))
    assert status(alice, job).state == pb.JOB_STATE_PAUSED
    alice.Resume(pb.ResumeRequest(jobID=job))
    assert wait(alice, job).endReason == pb.END_REASON_UNHEALTHY


def test_it_survives_the_supervisor(fresh_server: Server, tmp_path: Path, port: int) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with calling(fresh_server, "alice") as alice:
        job = serve(alice, port, gate)
        until(lambda: status(alice, job).ready)
        kill(fresh_server, "supervisor")
        until(lambda: _ready(alice, job))
        later = start(alice, "true", after=[job], afterOutcome=READY)
        assert wait(alice, later).exitCode == 0
        gate.unlink()
        assert wait(alice, job).endReason == pb.END_REASON_UNHEALTHY


def _ready(worker: WorkerServiceStub, job: str) -> bool:
    try:
        return bool(status(worker, job).ready)
    except grpc.RpcError:
        return False


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"port": 0}, "0 is no TCP port"),
        ({"port": 65536}, "65536 is no TCP port"),
        ({"port": 80, "intervalSeconds": 0.05}, "0.05 s is not between"),
        ({"port": 80, "retries": 101}, "101 retries"),
    ],
)
def test_what_cannot_be_asked_for(
    alice: WorkerServiceStub, fields: dict[str, float], words: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        start(alice, "true", health=pb.HealthCheck(**fields))
    assert words in told[0]


def test_the_command(server: Server, tmp_path: Path, port: int) -> None:
    gate = tmp_path / "gate"
    argv = (sys.executable, "-SEc", SERVER, str(port), str(gate))
    job = server.ask("alice", "start", "--health-port", str(port), "--", *argv)
    later = server.ask("alice", "start", "--after", job, "--on", "ready", "--", "true")
    assert f"Ready:     no, as port {port} tells" in server.ask("alice", "status", job)
    gate.touch()
    assert server.run("alice", "wait", later).returncode == 0
    assert f"Ready:     yes, as port {port} tells" in server.ask("alice", "status", job)
    told = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert (told["ready"], told["health"]["port"]) == (True, port)
    server.ask("alice", "stop", "--grace", "0", job)
    refusal = server.run("alice", "start", "--health-start", "5s", "--", "true")
    assert refusal.returncode == 2
    assert b"--health-start says how --health-port does it" in refusal.stderr
