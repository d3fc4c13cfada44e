"""`schedule`: jobs that are started again and again, as the command tells of them."""

import os
import re
import subprocess

import pytest

from tests.support.server import JOBWORKER, Server

CRON = ("--cron", "30 2 * * *", "--tz", "Europe/Berlin")


def test_a_schedule_s_life(server: Server) -> None:
    added = server.ask(
        "alice", "schedule", "add", "--name", "nightly", *CRON, "--", "sh", "-c", "echo a b"
    )
    assert added.startswith("nightly runs next at ")
    listed = server.ask("alice", "schedule", "list").splitlines()
    assert listed[0].split() == [
        "NAME",
        "OWNER",
        "TIMES",
        "ZONE",
        "NEXT",
        "LAST",
        "OUTCOME",
        "COMMAND",
    ]
    cells = re.split(" {2,}", listed[1])
    assert cells[:4] == ["nightly", "alice", "30 2 * * *", "Europe/Berlin"]
    assert re.fullmatch(r"in \d+h.*|in \d+m.*", cells[4])
    assert cells[5:] == ["-", "-", "sh -c 'echo a b'"]

    job = server.ask("alice", "schedule", "run", "nightly").strip()
    assert server.run("alice", "wait", job).returncode == 0
    # The run has its schedule's name.
    assert server.ask("alice", "logs", "nightly") == "a b"
    cells = re.split(" {2,}", server.ask("alice", "schedule", "list").splitlines()[1])
    assert cells[6] == f"job {job[-8:]}"

    assert server.ask("alice", "schedule", "pause", "nightly") == "nightly is paused"
    assert " paused " in server.ask("alice", "schedule", "list")
    assert "runs next at" in server.ask("alice", "schedule", "resume", "nightly")
    assert "until your certificate ends" in server.ask("alice", "schedule", "renew", "nightly")
    assert server.ask("alice", "schedule", "remove", "nightly") == "nightly is removed"
    assert server.ask("alice", "schedule", "list") == ""


def test_a_run_that_is_not_one(server: Server) -> None:
    server.ask("alice", "schedule", "add", "--name", "slow", *CRON, "--", "sleep", "1000")
    job = server.ask("alice", "schedule", "run", "slow").strip()
    done = server.run("alice", "schedule", "run", "slow")
    assert done.returncode == 1
    assert f"slow is not run: the run before, job {job}, has not ended" in done.stderr.decode()
    assert "not run: the run before" in server.ask("alice", "schedule", "list")
    server.ask("alice", "stop", job)
    server.ask("alice", "schedule", "remove", "slow")


def test_replacing_keeps_what_is_known_of_its_runs(server: Server) -> None:
    add = ("schedule", "add", "--name", "s", *CRON)
    server.ask("alice", *add, "--", "true")
    job = server.ask("alice", "schedule", "run", "s").strip()
    done = server.run("alice", *add, "--", "false")
    assert b"you have a schedule s: remove or replace it" in done.stderr
    server.ask("alice", *add, "--replace", "--", "false")
    assert job[-8:] in server.ask("alice", "schedule", "list")
    server.ask("alice", "schedule", "remove", "s")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cron", "* * * *"), "wrong number of fields; write minute, hour"),
        (("--cron", "* * * * *", "--tz", "Mars"), "there is no time zone 'Mars'"),
        (("--cron", "* * * * *", "-it"), "No such option"),
    ],
)
def test_what_is_refused(server: Server, words: tuple[str, ...], told: str) -> None:
    done = server.run("alice", "schedule", "add", "--name", "s", *words, "--", "true")
    assert done.returncode == 2
    assert told in done.stderr.decode()


def test_the_time_is_that_of_here(server: Server) -> None:
    words = ("schedule", "add", "--name", "here", "--cron", "0 9 * * *", "--", "true")
    environment = {**server.environment("alice"), "TZ": "Asia/Tokyo"}
    subprocess.run([JOBWORKER, *words], env=environment, check=True, capture_output=True)
    assert "Asia/Tokyo" in server.ask("alice", "schedule", "list")
    server.ask("alice", "schedule", "remove", "here")


def test_shells_complete_names(server: Server) -> None:
    server.ask("alice", "schedule", "add", "--name", "weekly", *CRON, "--", "true")
    environment = {
        **server.environment("alice"),
        "_JOBWORKER_COMPLETE": "bash_complete",
        "COMP_WORDS": "jobworker schedule run we",
        "COMP_CWORD": "3",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run([JOBWORKER], env=environment, check=True, capture_output=True)
    assert done.stdout == b"plain,weekly\n"
    server.ask("alice", "schedule", "remove", "weekly")
