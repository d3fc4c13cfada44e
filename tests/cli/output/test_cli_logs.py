"""`jobworker logs`: exact bytes, followed or not, across broken connections."""

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path

from tests.support.relay import relay_to
from tests.support.server import PORT, Server

DEADLINE_SECONDS = 60
BYTES = 20_000_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_output_is_exact(server: Server, tmp_path: Path) -> None:
    written = os.urandom(3_000_001)
    (tmp_path / "bytes").write_bytes(written)
    job = server.ask("alice", "start", "cat", str(tmp_path / "bytes"))
    followed = server.run("alice", "logs", "-f", job).stdout
    assert sha256(followed) == sha256(written)
    assert sha256(server.run("alice", "logs", job).stdout) == sha256(written)


def test_without_follow_it_ends_at_what_is_there(server: Server) -> None:
    job = server.ask("alice", "start", "sh", "-c", "echo on; sleep 1000")
    with server.popen("alice", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"on\n"
        assert server.run("alice", "logs", job).stdout == b"on\n"
        server.ask("alice", "stop", job)
        assert follower.stdout.read() == b""
        assert follower.wait(DEADLINE_SECONDS) == 0


def test_it_begins_at_an_offset(server: Server) -> None:
    job = server.ask("alice", "start", "printf", "0123456789")
    assert server.run("alice", "logs", "-f", "--offset", "7", job).stdout == b"789"
    assert server.run("alice", "logs", "-f", "--offset", "10", job).stdout == b""


def test_as_json_each_line_is_a_piece(server: Server) -> None:
    job = server.ask("alice", "start", "printf", "a\\377b")
    server.end("alice", job)
    lines = server.run("alice", "logs", "-f", "-o", "json", job).stdout.splitlines()
    pieces = [json.loads(line) for line in lines]
    assert pieces[0]["offset"] == 0
    assert b"".join(base64.b64decode(piece["data"]) for piece in pieces) == b"a\xffb"


def test_it_goes_on_from_the_same_byte_when_the_connection_breaks(
    server: Server, tmp_path: Path
) -> None:
    written = os.urandom(BYTES)
    (tmp_path / "bytes").write_bytes(written)
    job = server.ask("alice", "start", "cat", str(tmp_path / "bytes"))
    with relay_to((server.host, PORT), cut_every=BYTES // 4) as relay:
        done = server.run("alice", "logs", "-f", job, server=relay.address)
        assert relay.cuts >= 3
    assert done.returncode == 0, done.stderr
    assert sha256(done.stdout) == sha256(written)
    assert b"lost the connection" in done.stderr


def test_a_quiet_job_is_followed_over_an_outage(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    job = server.ask("alice", "start", "sh", "-c", f"echo on; read line < {go}; echo $line")
    with (
        relay_to((server.host, PORT)) as relay,
        server.popen("alice", "logs", "-f", job, server=relay.address) as follower,
    ):
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert follower.stdout.readline() == b"on\n"
        relay.sever()
        assert b"lost the connection" in follower.stderr.readline()
        go.write_text("later\n")
        server.end("alice", job)
        relay.restore()
        assert follower.stdout.read() == b"later\n"
        assert follower.wait(DEADLINE_SECONDS) == 0


def test_wait_outlasts_an_outage(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    ended = server.ask("alice", "start", "true")
    job = server.ask("alice", "start", "sh", "-c", f"read code < {go}; exit $code")
    with (
        relay_to((server.host, PORT)) as relay,
        server.popen("alice", "wait", ended, job, server=relay.address) as waiter,
    ):
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == b"0\n"
        relay.sever()
        assert waiter.stderr is not None
        assert b"lost the connection" in waiter.stderr.readline()
        go.write_text("6\n")
        relay.restore()
        assert waiter.communicate(timeout=DEADLINE_SECONDS)[0] == b"6\n"


def test_it_is_quiet_when_nobody_reads(server: Server) -> None:
    job = server.ask("alice", "start", "yes")
    with server.popen("alice", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"y\n"
        follower.stdout.close()
        assert follower.stderr is not None
        assert follower.stderr.read() == b""
        assert follower.wait(DEADLINE_SECONDS) == 1
    server.ask("alice", "stop", job)


def test_a_full_disk_is_told(server: Server) -> None:
    job = server.ask("alice", "start", "echo", "hi")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            ["jobworker", "logs", "-f", job],
            env=server.environment("alice"),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        b"jobworker: cannot write the output to stdout: No space left on device\n"
    )
