"""Commands that take JOBs take what chooses among one's own as well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import POLICY, USERS
from tests.support.server import Server, running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, USERS, POLICY) as up:
        yield up


def start(server: Server, *words: str, user: str = "alice") -> str:
    return server.ask(user, "start", *words, "--", "sleep", "1000")


def going_on(server: Server, user: str = "alice") -> set[str]:
    return set(server.ask(user, "list", "-q", "--running", "--owner", user).split())


def test_one_s_own_are_chosen_and_no_others(server: Server) -> None:
    """Also by who may stop everybody's."""
    first, second = (start(server, "--label", f"run={n}", "--name", f"fit.{n}") for n in (1, 2))
    serve = start(server, "--name", "serve")
    his = start(server, "--label", "run=1", user="bob")
    server.ask("alice", "pause", "--label", "run")
    assert set(server.ask("alice", "list", "-q", "--state", "paused").split()) == {first, second}
    server.ask("alice", "resume", "--state", "paused")
    assert server.ask("alice", "signal", "CONT", "--name", "s*").split() == [serve]
    assert server.ask("alice", "stop", "--label", "run=1").split() == [first]
    assert going_on(server) == {second, serve}
    assert set(server.ask("alice", "stop", "--mine").split()) == {second, serve}
    assert going_on(server) == set()
    # They have ended: rm means such, and wait those that have not.
    assert set(server.ask("alice", "rm", "--name", "fit.*").split()) == {first, second}
    assert server.ask("alice", "list", "-q").split() == [serve]
    assert going_on(server, "bob") == {his}
    server.ask("bob", "stop", "--mine")


def test_waiting_for_what_is_chosen(server: Server) -> None:
    """One that has failed before anybody waited counts, too."""
    failed = server.ask("alice", "start", "--label", "a=b", "--", "sh", "-c", "exit 3")
    assert server.run("alice", "wait", failed).returncode == 3
    server.ask("alice", "start", "--label", "a=b", "--", "sleep", "0.5")
    done = server.run("alice", "wait", "--label", "a=b")
    assert done.returncode == 1
    assert sorted(line.split()[-1] for line in done.stdout.decode().splitlines()) == ["0", "3"]


def test_the_output_of_what_is_chosen(server: Server) -> None:
    """Of jobs that have ended as well."""
    jobs = [
        server.ask("alice", "start", "--label", "a=b", "--", "echo", f"out {n}") for n in range(3)
    ]
    server.ask("alice", "wait", *jobs)
    done = server.run("alice", "logs", "-f", "--label", "a=b", "--raw")
    assert sorted(done.stdout.splitlines()) == [b"out 0", b"out 1", b"out 2"]


def test_nothing_chosen_is_no_failure(server: Server) -> None:
    for words in (
        ("stop", "--mine"),
        ("wait", "--label", "a"),
        ("wait", "--mine"),
        ("rm", "--name", "x*"),
    ):
        done = server.run("alice", *words)
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"there is no such job" in done.stderr


@pytest.mark.parametrize("command", ["stop", "wait", "rm", "pause", "resume", "logs"])
def test_choosing_nothing_and_both_are_mistakes(server: Server, command: str) -> None:
    done = server.run("alice", command)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"say which JOB, or choose by --label, --name or --mine" in done.stderr
    done = server.run("alice", command, "--mine", "@last")
    assert (done.returncode, b"but not both" in done.stderr) == (2, True)
