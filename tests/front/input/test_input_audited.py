"""What was sent to jobs is in the audit log: who, to which, how much; never what."""

from collections.abc import Iterator
from pathlib import Path

import grpc

from jobworker.authz.audit.files import last_lines
from jobworker.authz.audit.record import Carried
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.client import calling, refused, start, wait
from tests.support.server import running_server
from tests.support.waiting import until


def test_each_session_is_recorded_with_its_bytes(tmp_path: Path) -> None:
    settings = "audit: {directory: audit}\n"
    with (
        running_server(tmp_path, USERS, POLICY, settings) as server,
        calling(server, "alice") as alice,
    ):
        job = start(alice, "cat", input=pb.INPUT_MODE_OPEN)

        def pieces() -> Iterator[pb.InputRequest]:
            yield pb.InputRequest(jobID=job, sender="a", data=b"secret")
            yield pb.InputRequest(data=b"words", end=True)

        list(alice.Input(pieces()))
        wait(alice, job)
        until(lambda: bool(sessions(tmp_path)))
        (one,) = sessions(tmp_path)
        assert (one.action, one.cn, one.job, one.target) == ("attach", "alice", job, "input")
        assert (one.up, one.down) == (11, 0)
        # Who was not let in has sent nothing.
        with calling(server, "bob") as bob, refused(grpc.StatusCode.NOT_FOUND):
            list(bob.Input(pieces()))
        assert len(sessions(tmp_path)) == 1
        log = b"".join(file.read_bytes() for file in (tmp_path / "audit").iterdir())
        assert b"secret" not in log
        told = server.run("alice", "audit", "tail", str(tmp_path / "audit")).stdout
        assert b"ended attach by cn=alice" in told


def sessions(directory: Path) -> list[Carried]:
    events = (line.record.event for line in last_lines(directory / "audit", 1000))
    return [event for event in events if isinstance(event, Carried)]
