"""Names and short IDs, as people type them and as they are shown."""

import json
import os
import pty
import subprocess

import click
import pytest

from tests.support.server import JOBWORKER, Server

SHORT = 8


def on_a_terminal(server: Server, columns: int, *words: str, **more: str) -> list[str]:
    """The lines that the command shows on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = server.environment("alice") | {"COLUMNS": str(columns)} | more
    with os.fdopen(ours, "rb", 0) as screen:
        with os.fdopen(theirs, "wb", 0) as terminal:
            subprocess.run([JOBWORKER, *words], env=environment, stdout=terminal, check=True)
        return os.read(screen.fileno(), 65536).decode().splitlines()


def test_a_job_by_its_name(server: Server) -> None:
    job = server.ask("alice", "start", "--name", "nightly", "--", "sleep", "1000")
    shown = server.ask("alice", "status", "nightly")
    assert f"Job:       {job}\nName:      nightly\n" in shown
    assert json.loads(server.ask("alice", "status", "-o", "json", "@last"))["name"] == "nightly"
    done = server.run("alice", "start", "--name", "nightly", "--", "true")
    assert done.returncode == 1
    assert f"your job {job} has the name nightly".encode() in done.stderr
    stopped = json.loads(server.ask("alice", "stop", "-o", "json", "--grace", "0", "nightly"))
    assert (stopped["id"], stopped["state"]) == (job, "ended")
    again = server.ask("alice", "start", "--name", "nightly", "--", "sh", "-c", "exit 3")
    assert server.run("alice", "wait", "nightly").returncode == 3
    assert server.ask("alice", "rm", "nightly") == "nightly"
    assert again not in server.ask("alice", "list", "-q").split()


def test_within_a_job_names_are_given_too(server: Server) -> None:
    server.ask("alice", "start", "--name", "outer", "--", "sleep", "1000")
    server.ask("alice", "exec", "-d", "--name", "inner", "outer", "sleep", "1000")
    told = json.loads(server.ask("alice", "status", "-o", "json", "inner"))
    assert told["inside"] == json.loads(server.ask("alice", "status", "-o", "json", "outer"))["id"]
    server.ask("alice", "stop", "--grace", "0", "outer")


def test_what_is_no_name_is_said(server: Server) -> None:
    done = server.run("alice", "start", "--name", "beef", "--", "true")
    assert done.returncode == 2
    assert b"'beef' is no name for a job" in done.stderr


def test_tables_show_the_end_of_an_id_which_is_taken_for_it(fresh_server: Server) -> None:
    server = fresh_server
    jobs = [server.ask("alice", "start", "--", "sleep", "1000") for _ in range(2)]
    head, *lines = server.ask("alice", "list").splitlines()
    assert head.split() == ["JOB", "OWNER", "TENANT", "AGE", "STATE", "COMMAND"]
    shown = [line.split()[0] for line in lines]
    assert shown == [job[-SHORT:] for job in reversed(jobs)]
    usage = server.ask("alice", "stats", *shown).splitlines()
    assert [line.split()[0] for line in usage[1:]] == shown
    # What scripts read has all of it.
    assert server.ask("alice", "list", "-q").split() == jobs[::-1]
    told = server.ask("alice", "list", "-o", "json").splitlines()
    assert [json.loads(line)["id"] for line in told] == jobs[::-1]
    server.ask("alice", "stop", "--grace", "0", *shown)
    named = server.ask("alice", "start", "--name", "third", "--", "true")
    head, first, second, _ = server.ask("alice", "list").splitlines()
    assert head.split()[:3] == ["JOB", "NAME", "OWNER"]
    assert first.split()[:3] == [named[-SHORT:], "third", "alice"]
    assert second.split()[1] == "-"


def test_at_80_columns_there_is_room_for_the_command(server: Server) -> None:
    """The ID left it four."""
    command = ["sh", "-c", "sleep 1000; echo finished"]
    job = server.ask("alice", "start", "--name", "backup", "--", *command)
    head, first, *_ = on_a_terminal(server, 80, "list", "--running", NO_COLOR="1")
    assert len(first) <= 80
    assert first[head.index("COMMAND") :].startswith("sh -c 'sleep 1000; ")
    # A colour takes no room.
    _, coloured, *_ = on_a_terminal(server, 80, "list", "--running")
    assert "\x1b[36mrunning\x1b[0m" in coloured
    assert len(click.unstyle(coloured)) <= 80
    server.ask("alice", "stop", "--grace", "0", job)


def test_output_of_several_has_their_names_before_it(server: Server) -> None:
    one = server.ask("alice", "start", "--name", "web", "--", "echo", "up")
    other = server.ask("alice", "start", "--", "echo", "down")
    server.end("alice", one, other)
    lines = server.ask("alice", "logs", "web", other).splitlines()
    assert lines == ["web | up", f"{other[-SHORT:]} | down"]
    # Two of one name are told apart by their IDs.
    again = server.ask("alice", "start", "--name", "web", "--", "echo", "again")
    server.end("alice", again)
    lines = server.ask("alice", "logs", "web", one).splitlines()
    assert lines == [f"{again[-SHORT:]} | again", f"{one[-SHORT:]} | up"]


@pytest.mark.parametrize("user", ["alice", "ann"])
def test_shells_complete_names(server: Server, user: str) -> None:
    job = server.ask("alice", "start", "--name", "complete-me", "--", "true")
    server.ask("bob", "start", "--name", "complete-not", "--", "true")
    called = "complete-me" if user == "alice" else "alice/complete-me"

    def completed(begun: str) -> list[str]:
        environment = server.environment(user) | {
            "_JOBWORKER_COMPLETE": "bash_complete",
            "COMP_WORDS": f"jobworker status {begun}",
            "COMP_CWORD": "2",
        }
        done = subprocess.run(
            [JOBWORKER], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    assert called in completed("")
    assert completed(called[:-1]) == [called]
    assert completed(job[-SHORT:-1]) == [job[-SHORT:]]
    assert completed(job[:-1]) == [job]
    everything = completed("complete-") + completed("b")
    assert ("bob/complete-not" in everything) is (user == "ann")
