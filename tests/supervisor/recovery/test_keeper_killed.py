"""SIGKILL of the keeper, or of everything: the next start tells the truth."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.chaos import services
from tests.support.client import calling, output, start, wait
from tests.support.server import Server, configure, leaving_no_process, own_address, serving

# By when processes must have ended; how busy the host is decides how soon they do.
END_SECONDS = 60.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server that is going to be killed, and the settings for the next one."""
    host = own_address()
    authority = configure(tmp_path, host, POLICY, "")
    issued = {name: authority.client(name, [tenant]) for name, tenant in USERS}
    config = tmp_path / "server.yaml"
    with leaving_no_process(), serving(config, returncode=-signal.SIGKILL) as (process, log):
        yield Server(tmp_path, host, authority, issued, process, log), config


@contextmanager
def with_jobs(server: Server, config: Path) -> Iterator[list[psutil.Process]]:
    """Has one job that ended and one that runs; afterwards the next server must tell the truth.

    Gives the processes of the job that runs.
    """
    script = "echo before; (setsid sleep 1000 &) ; exec sleep 1000"
    with calling(server, "alice") as worker:
        ended = start(worker, "sh", "-c", "echo done; exit 5")
        wait(worker, ended)
        running = start(worker, "sh", "-c", script)
        follower = worker.GetOutput(pb.GetOutputRequest(jobID=running, raw=True))
        assert next(follower).data == b"before\n"
        main = psutil.Process(worker.QueryStatus(pb.QueryStatusRequest(jobID=running)).pid)
        job = _processes_of(running)
        assert main in job
    yield job
    with serving(config), calling(server, "alice") as worker:
        lost = worker.QueryStatus(pb.QueryStatusRequest(jobID=running))
        assert (lost.JobStatus, lost.endReason) == (pb.EXITED, pb.END_REASON_LOST)
        assert lost.exitCode != 0
        assert "ended while the job ran" in lost.detail
        assert output(worker, running) == b"before\n"
        kept = worker.QueryStatus(pb.QueryStatusRequest(jobID=ended))
        assert (kept.exitCode, output(worker, ended)) == (5, b"done\n")
        assert psutil.wait_procs(job, timeout=END_SECONDS)[1] == []


def test_the_keeper_is_killed(site: tuple[Server, Path]) -> None:
    server, config = site
    with with_jobs(server, config):
        others = services(server)
        assert len(others) == 2
        server.process.kill()
        _, alive = psutil.wait_procs(others, timeout=END_SECONDS)
        assert alive == []


def test_everything_is_killed(site: tuple[Server, Path]) -> None:
    """The jobs too, as when the power fails."""
    server, config = site
    with with_jobs(server, config) as job:
        everything = [*services(server), *job]
        server.process.kill()
        for process in everything:
            process.kill()
        assert psutil.wait_procs(everything, timeout=END_SECONDS)[1] == []


def _processes_of(job_id: str) -> set[psutil.Process]:
    """All that carry the job's token."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("JOBWORKER_JOB_ID") == job_id:
                found.add(process)
        except psutil.Error:
            continue
    return found
