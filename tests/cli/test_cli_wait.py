"""`jobworker wait` ends as the jobs did."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.conftest import POLICY
from tests.support.server import (
    DEADLINE_SECONDS,
    Server,
    configure,
    leaving_no_process,
    own_address,
    serving,
)


def exiting(server: Server, *codes: int) -> list[str]:
    """Jobs that end with these codes."""
    return [server.ask("alice", "start", "sh", "-c", f"exit {code}") for code in codes]


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_one_job_is_waited_for_with_its_code(server: Server, code: int) -> None:
    """Wait ended with 0 when the job had failed."""
    done = server.run("alice", "wait", *exiting(server, code))
    assert (done.returncode, done.stdout) == (code, f"{code}\n".encode())


def test_a_job_killed_by_a_signal_is_as_in_a_shell(server: Server) -> None:
    job = server.ask("alice", "start", "sh", "-c", "kill -KILL $$")
    assert server.run("alice", "wait", job).returncode == 128 + signal.SIGKILL


def test_several_jobs_end_it_with_1_if_one_failed(server: Server) -> None:
    failed = server.run("alice", "wait", *exiting(server, 0, 7, 0))
    assert (failed.returncode, failed.stdout) == (1, b"0\n7\n0\n")
    fine = server.run("alice", "wait", *exiting(server, 0, 0))
    assert (fine.returncode, fine.stdout) == (0, b"0\n0\n")


def test_several_are_told_in_the_order_given(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    first = server.ask("alice", "start", "sh", "-c", f"read line < {go}; exit 4")
    (second,) = exiting(server, 5)
    server.end("alice", second)
    with server.popen("alice", "wait", first, second) as waiter:
        go.write_text("\n")
        assert waiter.communicate(timeout=DEADLINE_SECONDS)[0] == b"4\n5\n"
        assert waiter.returncode == 1


def test_any_ends_with_the_first_to_end(server: Server) -> None:
    running = server.ask("alice", "start", "sleep", "1000")
    (ended,) = exiting(server, 9)
    done = server.run("alice", "wait", "--any", running, ended)
    assert (done.returncode, done.stdout) == (9, f"{ended}\n".encode())
    told = server.run("alice", "wait", "--any", "-o", "json", running, ended)
    assert json.loads(told.stdout)["id"] == ended
    server.ask("alice", "stop", running)


@pytest.mark.parametrize("options", [(), ("--any",)])
def test_after_the_timeout_it_ends_with_124(server: Server, options: tuple[str, ...]) -> None:
    jobs = [server.ask("alice", "start", "sleep", "1000") for _ in range(2)]
    done = server.run("alice", "wait", *options, "--timeout", "100ms", *jobs)
    assert (done.returncode, done.stdout) == (124, b"")
    assert done.stderr.decode() == f"jobworker: after 0.1 s still running: {' '.join(jobs)}\n"
    server.ask("alice", "stop", *jobs)


def test_a_timeout_of_0_asks_whether_it_has_ended(server: Server) -> None:
    (job,) = exiting(server, 6)
    server.end("alice", job)
    assert server.run("alice", "wait", "--timeout", "0", job).returncode == 6


def test_what_is_not_there_is_told_apart_from_every_job(server: Server) -> None:
    never = "00000000-0000-7000-8000-000000000000"
    assert server.run("alice", "wait", never).returncode == 125
    several = server.run("alice", "wait", *exiting(server, 0), never)
    assert (several.returncode, several.stdout) == (3, b"")


def test_a_lost_job_is_never_0(tmp_path: Path) -> None:
    """A script must not take a job that nobody saw the end of for one that went well."""
    host = own_address()
    authority = configure(tmp_path, host, POLICY, "")
    users = {"alice": authority.client("alice", ["team-a"])}
    with leaving_no_process():
        with serving(tmp_path / "server.yaml", returncode=-signal.SIGKILL) as (process, log):
            server = Server(tmp_path, host, authority, users, process, log)
            lost = server.ask("alice", "start", "sleep", "1000")
            (fine,) = exiting(server, 0)
            server.end("alice", fine)
            keeper = psutil.Process(process.pid)
            for one in [keeper, *keeper.children()]:
                one.kill()
        with serving(tmp_path / "server.yaml") as (process, log):
            server = Server(tmp_path, host, authority, users, process, log)
            one = server.run("alice", "wait", lost)
            assert (one.returncode, one.stdout) == (125, b"lost\n")
            assert b"was lost, its exit code is unknown" in one.stderr
            several = server.run("alice", "wait", fine, lost)
            assert (several.returncode, several.stdout) == (1, b"0\nlost\n")
