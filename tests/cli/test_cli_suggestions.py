"""What the command suggests: other commands, jobs, the rest of a list."""

import json
import subprocess
from datetime import UTC, datetime

import pytest

from jobworker.cli.main import _COMMANDS
from jobworker.cli.quantities import moment_text
from jobworker.cli.suggestions import suggestion
from tests.support.server import JOBWORKER, Server


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ls", "list"),
        ("ps", "list"),
        ("statsu", "status"),
        ("stat", "stats"),
        ("strat", "start"),
        ("lgos", "logs"),
        ("whoiam", "whoami"),
        ("scp", "cp"),
        ("xyzzy", None),
    ],
)
def test_a_misspelt_command_suggests_what_was_meant(typed: str, meant: str | None) -> None:
    """Names that other programs have led nowhere, and statsu to stats."""
    assert suggestion(typed, _COMMANDS) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ps"], "no such command 'ps'; did you mean 'list'?"),
        (["ca", "isue"], "no such command 'isue'; did you mean 'issue'?"),
        (["policy", "chekc"], "no such command 'chekc'; did you mean 'check'?"),
        (["audit", "xyzzy"], "no such command 'xyzzy'; they are search, tail, verify"),
        (["xyzzy"], "no such command 'xyzzy'; they are start, run, exec"),
    ],
)
def test_it_is_told_in_groups_too(words: list[str], said: str) -> None:
    done = subprocess.run([JOBWORKER, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_a_prefix_that_several_jobs_have_lists_them(server: Server) -> None:
    """Only their number was told."""
    jobs = [server.ask("alice", "start", "sh", "-c", f": {number}\n") for number in range(2)]
    common = jobs[0][:4]
    done = server.run("alice", "status", common)
    assert done.returncode == 2
    first, *candidates = done.stderr.decode().splitlines()
    assert first.endswith(f" jobs have IDs that begin or end with {common}: give more of the ID")
    # The newest first, each in one line.
    assert [line.split()[0] for line in candidates[:2]] == jobs[::-1]
    assert all(line.endswith("'") and "sh -c ': " in line for line in candidates[:2])


def test_of_many_candidates_some_are_listed_and_none_of_anothers(fresh_server: Server) -> None:
    hidden = fresh_server.ask("bob", "start", "true")
    jobs = [fresh_server.ask("alice", "start", "true") for _ in range(12)]
    done = fresh_server.run("alice", "logs", jobs[0][:4])
    first, *candidates = done.stderr.decode().splitlines()
    assert first.startswith("jobworker: 12 jobs have")
    assert [line.split()[0] for line in candidates[:-1]] == jobs[:1:-1]
    assert candidates[-1] == "  and 2 more"
    assert hidden not in done.stderr.decode()


@pytest.mark.parametrize(
    "line", ["logs", "status", "stop", "wait", "signal TERM", "rm", "stats", "logs -f -n 3"]
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_job_ids(server: Server, line: str, shell: str) -> None:
    job = server.ask("alice", "start", "true")
    hidden = server.ask("bob", "start", "true")
    words = f"jobworker {line} {job[:9]}".split()
    environment = server.environment("alice") | {
        "_JOBWORKER_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(words) if shell != "fish" else " ".join(words[:-1]),
        "COMP_CWORD": str(len(words) - 1) if shell != "fish" else words[-1],
    }
    done = subprocess.run([JOBWORKER], env=environment, capture_output=True, text=True, check=True)
    assert job in done.stdout
    assert hidden not in done.stdout
    assert done.stderr == ""


def test_a_list_says_when_there_are_more(server: Server) -> None:
    """It stopped at a hundred without a word."""
    for _ in range(3):
        server.ask("alice", "start", "true")
    more = "jobworker: these are the newest 2, there are more: `-n 0` lists all\n"
    for options in ([], ["-q"]):
        assert server.run("alice", "list", "-n", "2", *options).stderr.decode() == more
    as_json = server.run("alice", "list", "-n", "2", "-o", "json").stderr
    assert json.loads(as_json)["message"] in more
    every = len(server.ask("alice", "list", "-q", "-n", "0").split())
    for limit in (0, every, every + 1):
        assert server.run("alice", "list", "-n", str(limit)).stderr == b""


def test_times_are_local(server: Server) -> None:
    """They were UTC."""
    job = server.ask("alice", "start", "true")
    done = subprocess.run(
        [JOBWORKER, "status", job],
        env=server.environment("alice") | {"TZ": "JST-9"},
        capture_output=True,
        text=True,
        check=True,
    )
    (started,) = [line for line in done.stdout.splitlines() if line.startswith("Started:")]
    assert " JST (" in started
    told = datetime.fromisoformat(" ".join(started.split()[1:3]) + "+09:00")
    assert abs((datetime.now(UTC) - told).total_seconds()) < 120


def test_a_time_that_no_other_zone_has_is_told_all_the_same() -> None:
    assert moment_text(datetime.max.replace(tzinfo=UTC)).startswith("9999-12-31 ")
