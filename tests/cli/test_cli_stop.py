"""`jobworker stop` and `signal`: how they begin, and that they do not wait for one another."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.server import Server

READY = "echo up; while :; do sleep 0.05; done"


def up(server: Server, script: str, *options: str) -> str:
    """A job that has done what it does first, `trap` say."""
    job = server.ask("alice", "start", *options, "sh", "-c", f"{script}; {READY}")
    with server.popen("alice", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"up\n"
    return job


def test_several_are_stopped_at_once(server: Server, tmp_path: Path) -> None:
    """They were stopped one by one, so that N stubborn jobs took N grace periods."""
    meeting = tmp_path / "meeting"
    os.mkfifo(meeting)
    first = up(server, f"trap 'read line < {meeting}; exit 1' TERM", "--grace", "1000")
    second = up(server, f"trap 'echo > {meeting}; exit 2' TERM", "--grace", "1000")
    # The first ends only if the second is told before that.
    assert set(server.ask("alice", "stop", first, second).split()) == {first, second}
    assert server.end("alice", first, second) == "1\n2"


@pytest.mark.parametrize("whom", ["tree", "main"])
def test_the_way_of_the_start(server: Server, whom: str) -> None:
    job = up(server, "trap 'exit 3' INT", "--stop-signal", "int", "--stop-mode", whom)
    status = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert (status["stop_signal"], status["stop_mode"]) == (signal.SIGINT, whom)
    server.ask("alice", "stop", "--grace", "1000", job)
    assert server.end("alice", job) == "3"


def test_the_way_of_the_stop(server: Server) -> None:
    job = up(server, "trap 'exit 3' QUIT", "--stop-signal", "INT")
    server.ask("alice", "stop", "--grace", "1000", "--stop-signal", "QUIT", job)
    assert server.end("alice", job) == "3"


@pytest.mark.parametrize("options", [("--stop-signal", "NONE"), ("--stop-mode", "both")])
def test_what_is_no_way_is_a_usage_error(server: Server, options: tuple[str, str]) -> None:
    for command in (("start", *options, "true"), ("stop", *options, "0199")):
        done = server.run("alice", *command)
        assert done.returncode == 2
        assert options[1].encode() in done.stderr


def test_a_signal_to_all(server: Server) -> None:
    job = up(server, "(trap 'echo child' USR1; " + READY + ") & trap 'echo main' USR1; sleep 0")
    with server.popen("alice", "logs", "-f", job) as follower:
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(2)] == [b"up\n", b"up\n"]
        assert server.ask("alice", "signal", "--all", "USR1", job) == job
        # Among them what the shell has to say of its sleep.
        missing = {b"child\n", b"main\n"}
        while missing:
            line = follower.stdout.readline()
            assert line, missing
            missing.discard(line)
    server.ask("alice", "stop", "--grace", "0", job)
