"""`--on-disconnect`: what is done to a job whose client is gone, and not back in time."""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.session.conftest import POLICY
from tests.support.chaos import kill
from tests.support.server import JOBWORKER, Server, running_server
from tests.support.session.terminal import Terminal, on_terminal

LEAVE = "\x1d\x1d\x1d"
SCRIPT = "trap 'echo hung up; exit 7' HUP; echo id $JOBWORKER_JOB_ID; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits a second, not thirty."""
    jobs = "jobs: {attend_seconds: 1, users: {jobs_run_as_root: true}}\n"
    directory = tmp_path_factory.mktemp("hasty")
    with running_server(directory, [("alice", "team-a")], POLICY, jobs) as up:
        yield up


def begun(terminal: Terminal) -> str:
    """The job that runs there."""
    return terminal.until("^id ").split()[1]


@pytest.mark.parametrize("how", ["hup", "stop"])
def test_a_client_that_is_killed_takes_its_job_along(hasty: Server, how: str) -> None:
    options = ("run", "-it", "--on-disconnect", how, "sh", "-c", SCRIPT)
    with on_terminal(hasty, "alice", *options) as shell:
        job = begun(shell)
        shell.process.kill(signal.SIGKILL)
        assert hasty.end("alice", job) == "7"
    assert "hung up" in hasty.ask("alice", "logs", job)
    reason = "stopped" if how == "stop" else "exited"
    assert reason in hasty.ask("alice", "status", job)


def test_a_command_without_a_terminal_as_well(hasty: Server) -> None:
    words = [
        JOBWORKER,
        "run",
        "--on-disconnect",
        "stop",
        "--",
        "sh",
        "-c",
        "echo $JOBWORKER_JOB_ID; sleep 1000",
    ]
    with subprocess.Popen(
        words, env=hasty.environment("alice"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        job = client.stdout.readline().decode().strip()
        client.kill()
    assert hasty.end("alice", job) == "143"


def test_who_takes_leave_leaves_the_job_running(hasty: Server) -> None:
    options = ("run", "-it", "--on-disconnect", "stop", "sh", "-c", SCRIPT)
    with on_terminal(hasty, "alice", *options) as shell:
        job = begun(shell)
        shell.type(LEAVE)
        assert shell.end() == 0
    # One that is cut off is stopped long before.
    with on_terminal(hasty, "alice", *options) as other:
        cut_off = begun(other)
        other.process.kill(signal.SIGKILL)
        hasty.end("alice", cut_off)
    assert "running" in hasty.ask("alice", "status", job)
    hasty.ask("alice", "stop", job)


def test_a_service_that_is_killed_cuts_nobody_off(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Who comes back in time has never been gone."""
    options = ("run", "-it", "--on-disconnect", "stop", "sh", "-c", SCRIPT)
    jobs = "jobs: {attend_seconds: 15, users: {jobs_run_as_root: true}}\n"
    directory = tmp_path_factory.mktemp("patient")
    with (
        running_server(directory, [("alice", "team-a")], POLICY, jobs) as patient,
        on_terminal(patient, "alice", *options) as shell,
        on_terminal(patient, "alice", *options) as other,
    ):
        job = begun(shell)
        cut_off = begun(other)
        for victim in ("front", "supervisor"):
            kill(patient, victim)
            for one in (shell, other):
                # It is back once the terminal shows what is typed.
                one.type(f"back-from-{victim}")
                one.until_bytes(f"back-from-{victim}".encode())
        other.process.kill(signal.SIGKILL)
        patient.end("alice", cut_off)
        assert "running" in patient.ask("alice", "status", job)
        patient.ask("alice", "stop", job)
        assert shell.end() == 7
