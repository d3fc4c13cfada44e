"""A job that floods the disk on which everything is: others go on, and it can be got rid of."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from jobworker.authz.audit.files import verify
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from jobworker.supervisor import Reason, State
from tests.conftest import POLICY, USERS
from tests.front.disk.test_audit_full import fill
from tests.support.client import calling, refused, start, wait
from tests.support.file_systems import free, small_file_system
from tests.support.server import DEADLINE_SECONDS, running_server
from tests.support.waiting import until

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with small_file_system(tmp_path / "disk", "24m") as place:
        yield place


def test_a_flooding_job_leaves_room_for_the_record_and_can_be_removed(disk: Path) -> None:
    """`yes` filled the disk of all: no start was possible, and it could not be removed."""
    settings = f"audit: {{directory: {disk}/audit}}\n"
    with (
        running_server(disk, USERS, POLICY, settings) as server,
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
    ):
        flood = start(alice, "yes")
        size = os.statvfs(disk).f_blocks * os.statvfs(disk).f_frsize
        until(lambda: alice.QueryStatus(pb.QueryStatusRequest(jobID=flood)).outputBytes > 2 * size)
        assert free(disk) > MIB
        for code in range(5):
            ended = wait(bob, start(bob, "sh", "-c", f"exit {code}"))
            assert (ended.exitCode, ended.endReason) == (code, pb.END_REASON_EXITED)
        alice.Stop(pb.StopRequest(jobID=flood, graceSeconds=3))
        assert wait(alice, flood).endReason == pb.END_REASON_STOPPED
        until(lambda: alice.QueryStatus(pb.QueryStatusRequest(jobID=flood)).outputComplete)
        alice.Remove(pb.RemoveRequest(jobID=flood))
        until(lambda: free(disk) > size // 2)
        kept = bob.GetOutput(pb.GetOutputRequest(jobID=start(bob, "echo", "kept")))
        assert "".join(piece.output for piece in kept) == "kept\n"
        verify(disk / "audit")


def test_what_was_answered_on_a_full_disk_is_on_record(disk: Path, tmp_path: Path) -> None:
    """Wait answered 0 for an exit that was not on record, and was lost with the service."""
    with running_server(disk, USERS, POLICY) as server, calling(server, "alice") as alice:
        jobs = [start(alice, "sleep", "1000") for _ in range(10)]
        ballast = fill(disk)
        for job in jobs:
            alice.Stop(pb.StopRequest(jobID=job, graceSeconds=30))
            assert wait(alice, job).endReason == pb.END_REASON_STOPPED
            assert on_record(disk / "state", job, tmp_path / job) == (State.ENDED, Reason.STOPPED)
        ballast.unlink()
        alice.Remove(pb.RemoveRequest(jobID=jobs[0]))


def filled_for_good(disk: Path, worker: WorkerServiceStub) -> None:
    """Somebody fills the disk, and again what the service has given up to go on."""
    fill(disk, "first")
    for number in range(100):
        try:
            start(worker, "true")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            break
        fill(disk, f"again-{number}")
    else:
        pytest.fail("the disk is never full")


def test_a_disk_that_is_filled_again_hides_no_stop_and_a_removal_makes_room(disk: Path) -> None:
    """Stop killed and never answered; the removal of what had flooded hung and freed nothing."""
    with running_server(disk, USERS, POLICY) as server, calling(server, "alice") as alice:
        flood = start(alice, "yes")
        until(lambda: alice.QueryStatus(pb.QueryStatusRequest(jobID=flood)).outputBytes > MIB)
        pid = alice.QueryStatus(pb.QueryStatusRequest(jobID=flood)).pid
        filled_for_good(disk, alice)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as words:
            alice.Stop(pb.StopRequest(jobID=flood, graceSeconds=0.1))
        assert "cannot be put on record" in words[0]
        assert not psutil.pid_exists(pid)
        # Nobody is told what is not on record.
        told = alice.QueryStatus(pb.QueryStatusRequest(jobID=flood))
        assert told.JobStatus == pb.RUNNING
        alice.Remove(pb.RemoveRequest(jobID=flood))
        with refused(grpc.StatusCode.NOT_FOUND):
            alice.QueryStatus(pb.QueryStatusRequest(jobID=flood))
        until(lambda: free(disk) > MIB)
        assert wait(alice, start(alice, "sh", "-c", "exit 3")).exitCode == 3


def test_the_end_of_the_service_does_not_wait_for_a_full_disk(disk: Path) -> None:
    """SIGTERM took the longest grace period and five seconds more."""
    with running_server(disk, USERS, POLICY) as server, calling(server, "alice") as alice:
        start(alice, "sleep", "1000", graceSeconds=1000)
        filled_for_good(disk, alice)
        server.process.terminate()
        server.process.wait(DEADLINE_SECONDS)
        assert any("whose end is not on record" in line for line in server.log)


def on_record(state: Path, job_id: str, aside: Path) -> tuple[int, int]:
    """State and reason of a job, from a copy of the files as they are."""
    aside.mkdir()
    for end in ("", "-wal"):
        shutil.copy(state / f"journal.sqlite{end}", aside)
    with contextlib.closing(sqlite3.connect(aside / "journal.sqlite")) as database:
        statement = "SELECT state, reason FROM job WHERE id = ?"
        found: tuple[int, int] = database.execute(statement, (job_id,)).fetchone()
        return found
