"""Replacing the service under running jobs, and leaving them to the next one."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator

import grpc
import psutil

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import persist, pieces, services
from tests.support.client import calling, output, start
from tests.support.server import JOBWORKER, Server
from tests.support.waiting import until

DEADLINE_SECONDS = 60.0
# Counts as long as its gate is closed, then ends.
COUNTER = "i=0; while ! [ -e $1 ]; do echo $i; i=$((i + 1)); sleep 0.01; done; exit 9"


@contextlib.contextmanager
def counting(server: Server) -> Iterator[tuple[WorkerServiceStub, str]]:
    """A job that counts; afterwards it must have counted without a gap, in one process."""
    gate = server.directory / "gate"
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", COUNTER, "sh", str(gate))
        before = worker.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        yield worker, job_id
        gate.touch()
        lines = b"".join(pieces(worker, job_id)).splitlines()
        ended = persist(lambda: worker.Wait(pb.WaitRequest(jobID=job_id)))
    assert [int(line) for line in lines] == list(range(len(lines)))
    assert (ended.pid, ended.exitCode) == (before.pid, 9)


def pids(server: Server) -> set[int]:
    return {process.pid for process in services(server)}


def test_upgrade(fresh_server: Server) -> None:
    with counting(fresh_server) as (worker, job_id):
        before = pids(fresh_server)
        config = fresh_server.directory / "server.yaml"
        subprocess.run([JOBWORKER, "serve", "--config", config, "--upgrade"], check=True)
        until(lambda: len(pids(fresh_server)) == 2 and not before & pids(fresh_server))
        query = pb.QueryStatusRequest(jobID=job_id)
        status = persist(lambda: worker.QueryStatus(query, wait_for_ready=True))
        assert status.JobStatus == pb.RUNNING
    assert fresh_server.process.poll() is None


def test_upgrade_with_bad_settings_changes_nothing(fresh_server: Server) -> None:
    before = pids(fresh_server)
    config = fresh_server.directory / "bad.yaml"
    good = (fresh_server.directory / "server.yaml").read_text()
    config.write_text(good + "no_such_setting: 1\n")
    done = subprocess.run(
        [JOBWORKER, "serve", "--config", config, "--upgrade"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no_such_setting" in done.stderr
    assert pids(fresh_server) == before


def test_jobs_left_to_the_next_serve(fresh_server: Server) -> None:
    with counting(fresh_server) as (worker, job_id):
        fresh_server.process.send_signal(signal.SIGUSR1)
        until(lambda: not pids(fresh_server))
        pid = _pid_of(fresh_server, job_id)
        assert psutil.pid_exists(pid)
        config = fresh_server.directory / "server.yaml"
        following = subprocess.Popen(
            [JOBWORKER, "serve", "--config", config], stderr=subprocess.DEVNULL
        )
        try:
            query = pb.QueryStatusRequest(jobID=job_id)
            status = persist(lambda: worker.QueryStatus(query, wait_for_ready=True))
            assert (status.pid, status.JobStatus) == (pid, pb.RUNNING)
        except grpc.RpcError:
            following.kill()
            raise
    following.send_signal(signal.SIGTERM)
    assert following.wait(DEADLINE_SECONDS) == 0
    assert fresh_server.process.wait(DEADLINE_SECONDS) == 0


def test_one_service_a_state_directory(fresh_server: Server) -> None:
    config = fresh_server.directory / "server.yaml"
    done = subprocess.run(
        [JOBWORKER, "serve", "--config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"another service (process {fresh_server.process.pid}) runs on" in done.stderr


def test_the_output_of_a_service_that_runs_is_not_put_aside(fresh_server: Server) -> None:
    """`serve --new-journal` renamed it under a service whose journal somebody had removed."""
    with calling(fresh_server, "alice") as alice:
        job = start(alice, "echo", "out")
        assert output(alice, job) == b"out\n"
    state = fresh_server.directory / "state"
    (state / "journal.sqlite").rename(state / "taken.sqlite")
    config = fresh_server.directory / "server.yaml"
    done = subprocess.run(
        [JOBWORKER, "serve", "--new-journal", "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    (state / "taken.sqlite").rename(state / "journal.sqlite")
    assert f"another service (process {fresh_server.process.pid}) runs on" in done.stderr
    assert [path.name for path in (state / "output").iterdir()] == [job]


def _pid_of(server: Server, job_id: str) -> int:
    """The main process of a job while there is no server to ask: by its token."""
    for process in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.environ().get("JOBWORKER_JOB_ID") == job_id:
                return process.pid
    raise AssertionError(f"job {job_id} does not run")
