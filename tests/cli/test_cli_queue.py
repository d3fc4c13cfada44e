"""`--queue`: a job that waits, as the command tells of it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import POLICY, USERS
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("queue")
    with running_server(directory, USERS, POLICY, "quotas: {user: {running: 1}}\n") as running:
        yield running


def test_run_waits_for_its_turn(server: Server) -> None:
    """What it waits for is told on stderr, and so is that it waited in vain."""
    first = server.ask("alice", "start", "--", "sleep", "1000").strip()
    done = server.run("alice", "run", "--queue-timeout", "0.2s", "--", "true")
    assert done.returncode == 125
    assert b"waits for its turn: the quota running of the user alice" in done.stderr
    assert b"waited too long for its turn: it waited for 0.2 s\n" in done.stderr
    stopper = threading.Timer(0.5, server.ask, ("alice", "stop", first))
    stopper.start()
    done = server.run("alice", "run", "--queue", "--", "sh", "-c", "echo ran; exit 3")
    stopper.join()
    assert (done.returncode, done.stdout) == (3, b"ran\n")


def test_what_is_shown_of_one_that_waits(server: Server) -> None:
    first = server.ask("alice", "start", "--", "sleep", "1000").strip()
    job = server.ask("alice", "start", "--queue", "--priority", "2", "--", "true").strip()
    shown = server.ask("alice", "status", job)
    assert "State:     pending\n" in shown
    assert "PID:" not in shown
    assert "Detail:    the quota running of the user alice is reached" in shown
    told = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert (told["state"], told["queue"], told["priority"]) == ("pending", "default", 2)
    server.ask("alice", "stop", job, first)
    assert "ended: stopped before its turn\n" in server.ask("alice", "status", job)
    assert server.run("alice", "wait", job).returncode == 125
    done = server.run("alice", "start", "--queue=wide", "--", "true")
    assert done.returncode == 2
    assert b"there is no queue 'wide': they are default (queue)" in done.stderr
