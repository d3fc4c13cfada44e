"""A job that floods the disk on which everything is: others go on, and it can be got rid of."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.authz.audit.files import verify
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import Reason, State
from tests.conftest import POLICY, USERS
from tests.front.disk.test_audit_full import fill
from tests.support.client import calling, start, wait
from tests.support.file_systems import free, small_file_system
from tests.support.server import running_server
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


def on_record(state: Path, job_id: str, aside: Path) -> tuple[int, int]:
    """State and reason of a job, from a copy of the files as they are."""
    aside.mkdir()
    for end in ("", "-wal"):
        shutil.copy(state / f"journal.sqlite{end}", aside)
    with contextlib.closing(sqlite3.connect(aside / "journal.sqlite")) as database:
        statement = "SELECT state, reason FROM job WHERE id = ?"
        found: tuple[int, int] = database.execute(statement, (job_id,)).fetchone()
        return found
