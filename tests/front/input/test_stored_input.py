"""`start --stdin`: what is kept on disk for a job counts, and leaves room for what must go on."""

import os
from pathlib import Path

import grpc

from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.client import calling, refused, start
from tests.support.file_systems import free, small_file_system
from tests.support.server import running_server
from tests.support.waiting import until

MIB = 1024 * 1024


def server_in(directory: Path) -> Path:
    (directory / "server").mkdir()
    return directory / "server"


def test_it_counts_as_output_does(tmp_path: Path) -> None:
    settings = f"quotas: {{user: {{output_bytes: {2 * MIB}}}}}\n"
    data = tmp_path / "data"
    data.write_bytes(os.urandom(3 * MIB))
    with (
        running_server(server_in(tmp_path), USERS, POLICY, settings) as server,
        calling(server, "alice") as alice,
    ):
        job = server.ask("alice", "start", "--stdin", str(data), "--", "sleep", "1000")
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
            start(alice, "true")
        assert f"{3 * MIB} bytes of output are kept of {2 * MIB} allowed" in told[0]
        with calling(server, "bob") as bob:
            start(bob, "true")
        alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))
        until(lambda: _may_start(alice))


def _may_start(worker: object) -> bool:
    asked = pb.CanIRequest(action="start", start=pb.StartRequest(commandName="true"))
    return bool(worker.CanI(asked).allowed)  # type: ignore[attr-defined]


def test_it_leaves_room_on_the_disk(tmp_path: Path) -> None:
    """It took the last byte of all, with which what had ended could not be recorded."""
    data = tmp_path / "data"
    data.write_bytes(bytes(32 * MIB))
    with (
        small_file_system(tmp_path / "disk", "24m") as disk,
        running_server(disk, USERS, POLICY) as server,
    ):
        done = server.run("alice", "start", "--stdin", str(data), "--", "sleep", "1000")
        assert done.returncode == 6
        assert b"the job's input cannot be kept: No space left on device" in done.stderr
        assert free(disk) > MIB
        job = server.ask("alice", "list", "-q")
        server.ask("alice", "stop", job)
        server.ask("alice", "rm", job)
        assert server.run("alice", "run", "--", "echo", "on").stdout == b"on\n"
