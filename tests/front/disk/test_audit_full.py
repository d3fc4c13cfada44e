"""An audit log on a disk that is full, or that nobody may write to."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
from grpc_health.v1.health_pb2 import HealthCheckResponse

from jobworker.authz.audit.files import last_lines, verify
from jobworker.authz.audit.record import Decided
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.front.test_reload_policy import watching
from tests.support.client import calling, channel_of, refused, start, wait
from tests.support.file_systems import small_file_system
from tests.support.server import JOBWORKER, Server, configure, own_address, running_server
from tests.support.waiting import until

KIB = 1024


@contextmanager
def disk(place: Path) -> Iterator[Path]:
    """A file system of 256 KiB, as small as tests can fill at once."""
    with small_file_system(place, "256k"):
        yield place


def fill(directory: Path, name: str = "ballast") -> Path:
    """Leave no byte on the disk, and return the file that takes them."""
    ballast = directory / name
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(KIB))
        except OSError:
            return ballast


@contextmanager
def audited_on(disk: Path, directory: Path, settings: str = "") -> Iterator[Server]:
    """A server with its audit log on a disk."""
    more = f"audit: {{directory: {disk}/audit{settings}}}\n"
    with running_server(directory, USERS, POLICY, more) as server:
        yield server


def refuses(worker: WorkerServiceStub) -> bool:
    """Whether a request is refused for want of a record."""
    answer = worker.List.future(pb.ListRequest())
    code = answer.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}, answer
    return code is grpc.StatusCode.UNAVAILABLE


def test_the_hosts_administrator_is_not_kept_from_stopping(tmp_path: Path) -> None:
    """It may be a job that fills the disk of the log: nobody could stop that."""
    with (
        disk(tmp_path / "disk") as place,
        audited_on(place, tmp_path) as server,
        calling(server, "alice") as alice,
    ):
        job_id = start(alice, "sleep", "1000")
        fill(place)
        until(lambda: refuses(alice))
        config = str(tmp_path / "server.yaml")
        assert server.ask("alice", "admin", "stop", "--config", config, job_id) == job_id
        assert any(f"admin stop of {job_id} by root" in line for line in server.log)


def test_a_full_disk_refuses_what_cannot_be_recorded(tmp_path: Path) -> None:
    with (
        disk(tmp_path / "disk") as place,
        audited_on(place, tmp_path) as server,
        calling(server, "alice") as alice,
        channel_of(server, "alice") as channel,
    ):
        health = watching(channel, "audit")
        assert next(health).status == HealthCheckResponse.SERVING
        job_id = start(alice, "sleep", "1000")
        pid = alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id)).pid
        ballast = fill(place)
        # What is left of the log's last page.
        until(lambda: refuses(alice))
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        for _ in range(3):
            with refused(grpc.StatusCode.UNAVAILABLE):
                start(alice, "touch", str(tmp_path / "started"))
        # It may be what has filled the disk.
        alice.Stop(pb.StopRequest(jobID=job_id))
        assert not psutil.pid_exists(pid)
        assert not (tmp_path / "started").exists()
        ballast.unlink()
        alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        assert next(health).status == HealthCheckResponse.SERVING
        found = verify(place / "audit")
        events = [line.record.event for line in last_lines(place / "audit", found.last)]
        asked = [event.action for event in events if isinstance(event, Decided)]
        assert (asked[0], asked[-2:]) == ("start", ["stop", "status"])
        # None of those that were refused.
        assert asked.count("start") == asked.count("stop") == 1


def test_a_full_disk_is_no_matter_where_the_administrator_says_so(tmp_path: Path) -> None:
    with (
        disk(tmp_path / "disk") as place,
        audited_on(place, tmp_path, ", on_failure: continue") as server,
        calling(server, "alice") as alice,
    ):
        ballast = fill(place)
        until(lambda: not refuses(alice) and told(server))
        unrecorded = start(alice, "true")
        assert wait(alice, unrecorded).exitCode == 0
        ballast.unlink()
        until(lambda: any("can be written again" in line for line in server.log))
        verify(place / "audit")


def told(server: Server) -> bool:
    return any("No space left on device" in line for line in server.log)


def test_a_log_that_cannot_be_written_keeps_the_server_from_starting(tmp_path: Path) -> None:
    with disk(tmp_path / "disk") as place:
        (place / "audit").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        configure(tmp_path, own_address(), POLICY, f"audit: {{directory: {place}/audit}}\n")
        done = subprocess.run(
            [JOBWORKER, "serve", "--config", str(tmp_path / "server.yaml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert f"cannot write the audit log {place}/audit" in done.stderr
    assert "Traceback" not in done.stderr
