"""Ports of jobs over the wire: as TCP carries it, for who may, as long as they may."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from jobworker.authz.audit.files import last_lines
from jobworker.authz.audit.record import Carried, Decided
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.support.chaos import kill
from tests.support.client import calling, channel_of, refused, start
from tests.support.server import PORT, Server, running_server
from tests.support.waiting import until

NEVER = "00000000-0000-7000-8000-000000000000"
PATIENCE_SECONDS = 60.0
# Private jobs find no other in a home.
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or ""
# A server at a port of its own, which it says; `how` it treats who connects.
SERVING = """
import os, socket, struct, sys, threading
server = socket.create_server(("127.0.0.1", 0), backlog=256)
print(server.getsockname()[1], flush=True)
how = sys.argv[1]
def serve(taken):
    if how == "reset":
        taken.recv(1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        taken.close()
        return
    if how == "last word":
        while taken.recv(65536):
            pass
        taken.sendall(b"all of it" * 100000)
        taken.close()
        return
    if how == "first word":
        taken.sendall(b"that is all")
        taken.shutdown(socket.SHUT_WR)
        got = 0
        while data := taken.recv(65536):
            got += len(data)
        print("got", got, flush=True)
        return
    if how == "stalled":
        threading.Event().wait()
    try:
        while data := taken.recv(65536):
            taken.sendall(data)
    except ConnectionResetError:
        print("broken", flush=True)
        return
    print("ended", flush=True)
    taken.close()
while True:
    taken, _ = server.accept()
    threading.Thread(target=serve, args=(taken,), daemon=True).start()
"""


def serving(
    server: Server,
    how: str = "echo",
    user: str = "alice",
    python: str = sys.executable,
    **fields: object,
) -> tuple[str, int]:
    """A job that serves, and its port."""
    with calling(server, user) as worker:
        job_id = start(worker, python, "-SEc", SERVING, how, **fields)
        first = next(iter(worker.GetOutput(pb.GetOutputRequest(jobID=job_id))))
        return job_id, int(first.output)


@contextmanager
def forwarding(server: Server, job_id: str, port: int, user: str = "alice") -> Iterator[int]:
    """The port of this host that `jobworker forward` makes of a job's."""
    with server.popen(user, "forward", job_id, f"0:{port}") as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.endswith(f" is port {port} of job {job_id}\n"), line
        yield int(line.partition(" ")[0].partition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def to_the_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def exchanged(port: int, sent: bytes) -> bytes:
    """What comes back of what is sent, both to their ends."""
    with connect(port) as connection:
        sender = threading.Thread(target=lambda: (connection.sendall(sent), end(connection)))
        sender.start()
        received = to_the_end(connection)
        sender.join()
        return received


def end(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def printed(server: Server, job_id: str, line: str) -> None:
    """Wait until the job has printed a line."""
    with calling(server, "alice") as worker:
        for message in worker.GetOutput(pb.GetOutputRequest(jobID=job_id)):
            if line in message.output:
                return
    pytest.fail(f"it never printed {line}")


# -- what TCP does -----------------------------------------------------------------------------


def test_bytes_go_both_ways_to_their_ends(server: Server) -> None:
    job_id, port = serving(server)
    with forwarding(server, job_id, port) as local:
        for sent in (b"hello", b"", os.urandom(20_000_000)):
            received = exchanged(local, sent)
            assert hashlib.sha256(received).digest() == hashlib.sha256(sent).digest()


def test_each_side_may_end_first(server: Server) -> None:
    job_id, port = serving(server, "last word")
    with forwarding(server, job_id, port) as local:
        assert exchanged(local, b"x" * 1_000_000) == b"all of it" * 100_000
    job_id, port = serving(server, "first word")
    with forwarding(server, job_id, port) as local, connect(local) as connection:
        assert to_the_end(connection) == b"that is all"
        connection.sendall(b"y" * 1_000_000)
        end(connection)
        printed(server, job_id, "got 1000000")


def test_a_broken_connection_is_broken_on_the_other_side(server: Server) -> None:
    job_id, port = serving(server, "reset")
    with forwarding(server, job_id, port) as local, connect(local) as connection:
        connection.sendall(b"!")
        with pytest.raises(ConnectionResetError):
            to_the_end(connection)
    job_id, port = serving(server)
    with forwarding(server, job_id, port) as local:
        with connect(local) as connection:
            connection.sendall(b"ping")
            assert connection.recv(4) == b"ping"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        printed(server, job_id, "broken")
        with connect(local) as connection:
            connection.sendall(b"ping")
            assert connection.recv(4) == b"ping"
            server.ask("alice", "stop", job_id)
            assert not connection.recv(1)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.skipif(not SYSTEM_PYTHON, reason="no Python in /usr")
@pytest.mark.parametrize("alone", [False, True], ids=["network", "no network"])
def test_a_private_job(server: Server, alone: bool) -> None:
    job_id, port = serving(
        server, python=SYSTEM_PYTHON, isolation=pb.ISOLATION_PRIVATE, noNetwork=alone
    )
    with forwarding(server, job_id, port) as local:
        for sent in (b"hello", b"x" * 1_000_000):
            assert exchanged(local, sent) == sent


def test_many_connections_at_once(server: Server) -> None:
    job_id, port = serving(server)
    with forwarding(server, job_id, port) as local:
        open_ones = [connect(local) for _ in range(60)]
        for number, connection in enumerate(open_ones):
            connection.sendall(f"{number:04}".encode())
        for number, connection in enumerate(open_ones):
            assert connection.recv(4) == f"{number:04}".encode()
            end(connection)
        for connection in open_ones:
            assert to_the_end(connection) == b""
            connection.close()


def test_who_does_not_read_holds_up_who_sends(server: Server) -> None:
    job_id, port = serving(server, "stalled")
    most = 64 * 1024 * 1024
    with forwarding(server, job_id, port) as local, connect(local) as connection:
        connection.settimeout(3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < most:
                sent += connection.send(b"x" * 65536)
        assert sent < most
        # Others are not held up.
        other, theirs = serving(server)
        with forwarding(server, other, theirs) as beside:
            assert exchanged(beside, b"hello") == b"hello"


def test_it_goes_on_when_the_front_or_the_supervisor_dies(fresh_server: Server) -> None:
    job_id, port = serving(fresh_server)
    with forwarding(fresh_server, job_id, port) as local:
        with connect(local) as connection:
            connection.sendall(b"ping")
            assert connection.recv(4) == b"ping"
            kill(fresh_server, "supervisor")
            connection.sendall(b"pong")
            assert connection.recv(4) == b"pong"
            kill(fresh_server, "front")
            with pytest.raises(ConnectionResetError):
                connection.recv(1)

        def again() -> bool:
            try:
                return exchanged(local, b"hello") == b"hello"
            except ConnectionError:
                return False

        until(again)


# -- who may -----------------------------------------------------------------------------------


def test_it_takes_a_right_of_its_own(server: Server) -> None:
    job_id, port = serving(server)
    with calling(server, "ann") as ann, refused(grpc.StatusCode.PERMISSION_DENIED) as words:
        list(ann.Forward(iter([pb.ForwardData(jobID=job_id, port=port)])))
    assert words[0].startswith("forward refused to cn=ann")
    with calling(server, "bob") as bob:
        answers = []
        for asked in (job_id, NEVER):
            with refused(grpc.StatusCode.NOT_FOUND) as words:
                list(bob.Forward(iter([pb.ForwardData(jobID=asked, port=port)])))
            answers.append(words[0].replace(asked, "JOB"))
        assert answers[0] == answers[1]
    for user, code in (("ann", 4), ("bob", 3)):
        done = server.run(user, "forward", job_id, f"0:{port}")
        assert (done.returncode, done.stdout) == (code, b"")


def test_nothing_of_the_host_is_to_be_had(server: Server) -> None:
    """The service's own ports, and those of other jobs, are as if nobody listened."""
    job_id, _ = serving(server)
    _, theirs = serving(server, user="bob")
    with socket.create_server(("", 0)) as stranger, calling(server, "alice") as alice:
        words = set()
        asked = [PORT, theirs, stranger.getsockname()[1], 22, 1]
        for each in asked:
            with refused(grpc.StatusCode.FAILED_PRECONDITION) as refusal:
                list(alice.Forward(iter([pb.ForwardData(jobID=job_id, port=each)])))
            words.add(refusal[0].replace(f"port {each}", "port PORT"))
        assert words == {f"no process of job {job_id} listens at the TCP port PORT"}
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.accept()
    with (
        forwarding(server, job_id, theirs) as local,
        connect(local) as connection,
        pytest.raises(ConnectionResetError),
    ):
        connection.recv(1)


def test_what_is_no_request(server: Server) -> None:
    job_id, port = serving(server)
    with calling(server, "alice") as alice:
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            list(alice.Forward(iter([])))
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            list(alice.Forward(iter([pb.ForwardData(jobID=job_id, port=65536)])))
        assert "65536 is no TCP port" in words[0]
        with refused(grpc.StatusCode.NOT_FOUND):
            list(alice.Forward(iter([pb.ForwardData(port=port)])))
        # Whether one may, without a connection.
        assert list(alice.Forward(iter([pb.ForwardData(jobID=job_id)]))) == [pb.ForwardData()]
    with channel_of(server, "alice") as channel:
        raw = channel.stream_stream("/workerservice.WorkerService/Forward")
        first = pb.ForwardData(jobID=job_id, port=port).SerializeToString()
        for messages in ([b"\xff\xff"], [first, b"\xff\xff"]):
            with refused(grpc.StatusCode.INVALID_ARGUMENT):
                list(raw(iter(messages)))


def test_a_right_that_is_taken_away_ends_it(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, "audit: {directory: audit}\n") as server:
        job_id, port = serving(server)
        with server.popen("alice", "forward", job_id, f"0:{port}") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            local = int(process.stdout.readline().split()[0].partition(b":")[2])
            with connect(local) as connection:
                connection.sendall(b"ping")
                assert connection.recv(4) == b"ping"
                rule = '  - deny: forward\n    to: cn:alice\n    jobs: "*/*"\n'
                policy = tmp_path / "policy.new"
                policy.write_text(POLICY + rule)
                policy.rename(tmp_path / "policy.yaml")
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
            assert process.wait(PATIENCE_SECONDS) == 4
            assert b"forward refused to cn=alice" in process.stderr.read()
        sessions = carried(tmp_path)
        assert [(one.action, one.cn, one.job, one.target) for one in sessions] == [
            ("forward", "alice", job_id, f"port {port}")
        ]
        assert (sessions[0].up, sessions[0].down) == (4, 4)
        events = [line.record.event for line in last_lines(tmp_path / "audit", 1000)]
        asked = [one for one in events if isinstance(one, Decided) and one.action == "forward"]
        assert [one.allowed for one in asked] == [True, True, False]
        printed(server, job_id, "broken")
        told = server.run("alice", "audit", "tail", str(tmp_path / "audit"))
        assert b"ended forward by cn=alice" in told.stdout
        lines = server.run("alice", "audit", "tail", "-o", "json", str(tmp_path / "audit")).stdout
        kinds = [json.loads(line)["event"]["kind"] for line in lines.splitlines()]
        assert kinds.count("session") == 1


def carried(directory: Path) -> list[Carried]:
    """The sessions in the audit log, once there is one."""
    until(lambda: bool(sessions_in(directory)))
    return sessions_in(directory)


def sessions_in(directory: Path) -> list[Carried]:
    events = (line.record.event for line in last_lines(directory / "audit", 1000))
    return [event for event in events if isinstance(event, Carried)]


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ports", ["", "x", "0", "8080:", ":80", "80:65536", "65536:80", "1:2:3", "-1", "\uff18"]
)
def test_ports_that_are_none(server: Server, ports: str) -> None:
    done = server.run("alice", "forward", NEVER, "--", ports)
    assert done.returncode == 2
    assert done.stdout == b""


def test_a_port_of_this_host_that_is_taken(server: Server) -> None:
    job_id, port = serving(server)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        local = taken.getsockname()[1]
        done = server.run("alice", "forward", job_id, f"{local}:{port}")
    assert done.returncode == 1
    assert f"cannot listen at 127.0.0.1:{local}".encode() in done.stderr
