"""Output without gRPC: the same bytes, to the same people, over a connection of its own."""

import base64
import hashlib
import json
import os
import signal
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed, NotServed
from jobworker.client.flood import FLOOD_BYTES, FLOOD_SECONDS, Flood
from jobworker.client.output_connection import OutputConnection
from jobworker.client.pieces import Chunk, Gap, Piece
from jobworker.proto import workerservice_pb2 as pb
from tests.conftest import POLICY, USERS
from tests.front.output.test_stalled_reader import resident
from tests.front.test_front_killed import front_of
from tests.support.client import calling, output, start, wait
from tests.support.pki import Issued
from tests.support.relay import relay_to
from tests.support.server import PORT, Server, running_server
from tests.support.waiting import until

DEADLINE_SECONDS = 60
BYTES = 40_000_000
LENGTH = struct.Struct(">I")
# Some on each stream, and a gap: three quarters of it are rotated away.
SCRIPT = "seq 1 20000; echo oops >&2; seq 20001 20003"
KEPT = 64 * 1024


def settings(server: Server, files: Issued, address: str | None = None) -> Endpoint:
    """What the client needs to reach the server, at another address if one is given."""
    ca = server.authority.certificate
    return Endpoint(address or server.address, ca, files.certificate, files.key)


def pieces(server: Server, user: str, job_id: str, **fields: object) -> list[Piece]:
    """What an output connection gives for a request."""
    with OutputConnection(settings(server, server.users[user])) as connection:
        found = connection.output(pb.GetOutputRequest(jobID=job_id, **fields))
        return list(map(kept, found))


def kept(piece: Piece) -> Piece:
    """The piece, safe from the next."""
    return replace(piece, data=bytes(piece.data)) if isinstance(piece, Chunk) else piece


def data(found: list[Piece]) -> bytes:
    """The bytes of the pieces, which follow each other."""
    for one, other in pairwise(found):
        assert one.end <= other.offset
    return b"".join(piece.data for piece in found if isinstance(piece, Chunk))


@contextmanager
def failing(code: str) -> Iterator[list[str]]:
    words: list[str] = []
    with pytest.raises(CallFailed) as caught:
        yield words
    assert caught.value.code == code, caught.value
    words.append(caught.value.message)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"offset": 5},
        {"tailBytes": 7},
        {"tailLines": 3},
        {"stream": pb.OUTPUT_STREAM_STDERR},
        {"stream": pb.OUTPUT_STREAM_STDOUT, "tailLines": 2},
        {"noFollow": True},
    ],
    ids=str,
)
def test_it_gives_what_get_output_gives(server: Server, fields: dict[str, object]) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", SCRIPT)
        wait(worker, job_id)
        assert data(pieces(server, "alice", job_id, **fields)) == output(worker, job_id, **fields)


def test_gaps_times_and_streams_are_told(server: Server) -> None:
    limit = pb.OutputLimit(bytes=KEPT)
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", SCRIPT, outputLimit=limit)
        wait(worker, job_id)
        request = pb.GetOutputRequest(jobID=job_id, raw=True, detail=True)
        expected: list[object] = []
        for message in worker.GetOutput(request):
            if message.gapBytes:
                expected.append((message.offset, message.gapBytes))
            else:
                expected.append((message.offset, message.stream, message.time.ToNanoseconds()))
    found: list[object] = []
    for piece in pieces(server, "alice", job_id, detail=True):
        if isinstance(piece, Gap):
            found.append((piece.offset, piece.length))
            continue
        assert piece.time is not None
        names = {"stdout": pb.OUTPUT_STREAM_STDOUT, "stderr": pb.OUTPUT_STREAM_STDERR}
        microseconds = round(piece.time.timestamp() * 1e6)
        found.append((piece.offset, names[str(piece.stream)], microseconds * 1000))
    assert len(expected) > 2
    assert isinstance(expected[0], tuple)
    assert expected[0] == found[0]
    # Python's datetime has microseconds.
    assert [_rounded(entry) for entry in expected] == [_rounded(entry) for entry in found]


def _rounded(entry: object) -> object:
    assert isinstance(entry, tuple)
    return (*entry[:2], *(time // 10_000_000 for time in entry[2:]))


def test_a_flood_is_exact_and_ends_by_itself(server: Server, tmp_path: Path) -> None:
    written = os.urandom(BYTES)
    (tmp_path / "bytes").write_bytes(written)
    with calling(server, "alice") as worker:
        job_id = start(worker, "cat", str(tmp_path / "bytes"))
    # Live, and of a job that has ended.
    for _ in range(2):
        assert data(pieces(server, "alice", job_id)) == written


def test_it_is_live(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", f"echo on; read line < {go}; echo $line")
    with OutputConnection(settings(server, server.users["alice"])) as connection:
        found = connection.output(pb.GetOutputRequest(jobID=job_id))
        assert data([next(found)]) == b"on\n"
        go.write_text("off\n")
        assert data(list(map(kept, found))) == b"off\n"


def test_nothing_waits_for_more_than_is_to_come(server: Server, tmp_path: Path) -> None:
    """Pieces of all sizes, each written only when the one before has been read."""
    go = tmp_path / "go"
    os.mkfifo(go)
    sizes = [2**power + odd for power in range(10, 20) for odd in (-1, 0, 4097)]
    # Open all the time: a writer that is slow to close would be an end to the next read.
    script = "exec 3<>$1; while read size <&3 && [ $size -gt 0 ]; do head -c $size /dev/zero; done"
    with calling(server, "alice") as worker:
        job_id = start(worker, "sh", "-c", script, "sh", str(go))
    with OutputConnection(settings(server, server.users["alice"])) as connection:
        found = connection.output(pb.GetOutputRequest(jobID=job_id))
        for size in sizes:
            go.write_text(f"{size}\n")
            received = 0
            while received < size:
                piece = next(found)
                received += piece.end - piece.offset
            assert received == size
        go.write_text("0\n")
        assert list(found) == []


def test_what_came_of_a_piece_does_not_wait_for_the_rest(server: Server, tmp_path: Path) -> None:
    """A network that stops in the middle of a piece holds back at most a record of what came."""
    written = os.urandom(4_000_000)
    (tmp_path / "bytes").write_bytes(written)
    with calling(server, "alice") as worker:
        job_id = start(worker, "cat", str(tmp_path / "bytes"))
        wait(worker, job_id)
    with relay_to((server.host, PORT), hold_after=2_500_000) as relay:
        there = settings(server, server.users["alice"], relay.address)
        with OutputConnection(there) as connection:
            found = connection.output(pb.GetOutputRequest(jobID=job_id))
            received = bytearray()
            while len(received) < 2_450_000:
                received += data([next(found)])
            relay.release()
            received += data(list(map(kept, found)))
    assert received == written


def test_another_tenants_job_does_not_exist(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "echo", "secret")
    told = []
    for unseen in (job_id, "01a00000-0000-7000-8000-000000000000"):
        with failing("NOT_FOUND") as words:
            pieces(server, "bob", unseen)
        told.append(words[0].replace(unseen, ""))
    assert told[0] == told[1]
    assert data(pieces(server, "ann", job_id)) == b"secret\n"


def test_a_certificate_without_an_identity_reads_nothing(server: Server) -> None:
    nobody = server.authority.client("two words", ["team-a"])
    with (
        OutputConnection(settings(server, nobody)) as connection,
        failing("UNAUTHENTICATED") as words,
    ):
        list(connection.output(pb.GetOutputRequest(jobID="0000")))
    assert "CN" in words[0]


def test_what_makes_no_sense_is_refused(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "true")
    with failing("INVALID_ARGUMENT") as words:
        pieces(server, "alice", job_id, offset=1, tailLines=1)
    assert "offset and tailLines" in words[0]


@contextmanager
def tls(server: Server) -> Iterator[ssl.SSLSocket]:
    """A connection for output on which nothing has been sent."""
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    files = server.users["alice"]
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["jobworker-output/1"])
    with socket.create_connection((server.host, PORT), DEADLINE_SECONDS) as plain:
        yield context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    "sent",
    [
        LENGTH.pack(2**32 - 1),
        LENGTH.pack(70_000) + b"x" * 70_000,
        LENGTH.pack(1) + b"\x0a" + b"and more",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["huge", "too-long", "something-after", "http2"],
)
def test_what_is_no_request_is_hung_up_on(server: Server, sent: bytes) -> None:
    with tls(server) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_a_request_that_is_no_message_is_refused(server: Server) -> None:
    with tls(server) as connection:
        connection.sendall(LENGTH.pack(2) + b"\xff\xff")
        received = b""
        while some := connection.recv(4096):
            received += some
    frame = pb.OutputFrame.FromString(received[LENGTH.size :])
    assert frame.end.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with calling(server, "alice") as worker:
        job_id = start(worker, "echo", "hi")
        wait(worker, job_id)
    request = pb.GetOutputRequest(jobID=job_id).SerializeToString()
    with tls(server) as connection:
        for byte in LENGTH.pack(len(request)) + request:
            connection.sendall(bytes([byte]))
        received = b""
        while some := connection.recv(4096):
            received += some
    assert b"hi\n" in received


def test_a_server_that_does_not_know_it_is_told_apart(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    with pytest.raises(NotServed):
        OutputConnection(settings(server, server.users["alice"], address))


def test_a_new_policy_ends_it(fresh_server: Server) -> None:
    with calling(fresh_server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "echo on; exec sleep 1000")
    with OutputConnection(settings(fresh_server, fresh_server.users["alice"])) as connection:
        found = connection.output(pb.GetOutputRequest(jobID=job_id))
        assert data([next(found)]) == b"on\n"
        draft = fresh_server.directory / "draft"
        draft.write_text(f'{POLICY}  - deny: output\n    to: cn:alice\n    jobs: "*/*"\n')
        draft.rename(fresh_server.directory / "policy.yaml")
        with failing("PERMISSION_DENIED") as words:
            next(found)
    assert "output refused to cn=alice" in words[0]


def test_a_reader_that_stalls_is_cut_and_costs_no_memory(tmp_path: Path) -> None:
    flood = 300_000_000
    quick = "connections: {stall_seconds: 3}\n"
    with (
        running_server(tmp_path, USERS, POLICY, quick) as server,
        calling(server, "alice") as worker,
    ):
        job_id = start(worker, "head", "-c", str(flood), "/dev/zero")
        with OutputConnection(settings(server, server.users["alice"])) as connection:
            found = connection.output(pb.GetOutputRequest(jobID=job_id))
            received = len(data([next(found)]))
            before = resident(server)
            assert wait(worker, job_id).outputBytes == flood, "the reader held the job up"
            assert resident(server) - before < flood // 4
            until(lambda: any("cut a reader" in line for line in server.log))
            with failing("ABORTED"):
                for piece in found:
                    received += piece.end - piece.offset
        rest = pieces(server, "alice", job_id, offset=received)
        assert len(data(rest)) == flood - received


def test_too_many_connections_are_turned_away(tmp_path: Path) -> None:
    few = "connections: {per_name: 2}\n"
    with running_server(tmp_path, USERS, POLICY, few) as server:
        with calling(server, "alice") as worker:
            job_id = start(worker, "sh", "-c", "echo on; exec sleep 1000")
            with OutputConnection(settings(server, server.users["alice"])) as one:
                found = one.output(pb.GetOutputRequest(jobID=job_id))
                assert data([next(found)]) == b"on\n"
                with failing("RESOURCE_EXHAUSTED") as words:
                    pieces(server, "alice", job_id)
                assert "alice has 2 connections" in words[0]
        # A client that hangs up makes room.
        assert data(pieces(server, "alice", job_id, noFollow=True)) == b"on\n"


def test_the_end_of_the_front_is_told_as_a_broken_connection(fresh_server: Server) -> None:
    with calling(fresh_server, "alice") as worker:
        job_id = start(worker, "sh", "-c", "echo on; exec sleep 1000")
    with OutputConnection(settings(fresh_server, fresh_server.users["alice"])) as connection:
        found = connection.output(pb.GetOutputRequest(jobID=job_id))
        assert data([next(found)]) == b"on\n"
        front_of(fresh_server).send_signal(signal.SIGKILL)
        with failing("UNAVAILABLE"):
            next(found)


def test_the_command_uses_it_for_a_flood_alone(server: Server, tmp_path: Path) -> None:
    written = os.urandom(BYTES)
    (tmp_path / "bytes").write_bytes(written)
    flood = server.ask("alice", "start", "cat", str(tmp_path / "bytes"))
    trickle = server.ask("alice", "start", "echo", "hi")
    digest = hashlib.sha256(written).digest()
    with relay_to((server.host, PORT)) as relay:
        assert server.run("alice", "logs", "-f", trickle, server=relay.address).stdout == b"hi\n"
        assert relay.taken == 1
        done = server.run("alice", "logs", "-f", flood, server=relay.address)
        assert relay.taken == 3
    assert hashlib.sha256(done.stdout).digest() == digest
    assert done.stderr == b""


def test_a_flood_as_json(server: Server, tmp_path: Path) -> None:
    written = os.urandom(BYTES)
    (tmp_path / "bytes").write_bytes(written)
    flood = server.ask("alice", "start", "cat", str(tmp_path / "bytes"))
    with relay_to((server.host, PORT)) as relay:
        done = server.run("alice", "logs", "-f", "-o", "json", flood, server=relay.address)
        assert relay.taken >= 2
    found = map(json.loads, done.stdout.splitlines())
    assert b"".join(base64.b64decode(piece["data"]) for piece in found) == written


def test_the_command_does_without_where_there_may_be_no_more_connections(tmp_path: Path) -> None:
    written = os.urandom(BYTES)
    (tmp_path / "bytes").write_bytes(written)
    one = "connections: {per_name: 1}\n"
    with running_server(tmp_path, USERS, POLICY, one) as server:
        done = server.run("alice", "run", "cat", str(tmp_path / "bytes"))
        assert any("turned away alice" in line for line in server.log)
    assert done.stderr == b""
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(written).digest()


def test_it_is_on_the_audit_log(tmp_path: Path) -> None:
    audit = "audit: {directory: audit}\n"
    with running_server(tmp_path, USERS, POLICY, audit) as server:
        with calling(server, "alice") as worker:
            job_id = start(worker, "echo", "hi")
        pieces(server, "alice", job_id)
        with failing("NOT_FOUND"):
            pieces(server, "bob", job_id)
        lines = b"".join(file.read_bytes() for file in (tmp_path / "audit").glob("*.jsonl"))
    outputs = [line for line in lines.splitlines() if b'"action":"output"' in line]
    assert len(outputs) == 2
    assert [b'"allowed":true' in line for line in outputs] == [True, False]


def test_flood_or_trickle() -> None:
    now = 0.0
    flood = Flood(lambda: now)
    for _ in range(10):
        now += FLOOD_SECONDS * 1.5
        assert not flood.begins_with(FLOOD_BYTES // 2)
    now += FLOOD_SECONDS * 1.5
    assert not flood.begins_with(FLOOD_BYTES // 2)
    assert flood.begins_with(FLOOD_BYTES // 2)
    assert flood.flows
    # It is told once, and once there is no way for it never again.
    assert not flood.begins_with(FLOOD_BYTES)
    flood.dam()
    assert not flood.flows
    assert not flood.begins_with(FLOOD_BYTES)
