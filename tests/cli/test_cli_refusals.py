"""What the command says, and ends with, when the server refuses."""

import pytest

from tests.support.server import Server


@pytest.fixture(scope="module")
def job(server: Server) -> str:
    """A job of alice's that runs."""
    return server.ask("alice", "start", "sleep", "1000")


def test_a_refused_start_says_what_and_to_whom(server: Server) -> None:
    done = server.run("bob", "start", "/bin/false")
    assert (done.returncode, done.stdout) == (4, b"")
    said = done.stderr.decode()
    assert said.startswith("jobworker: start refused to ")
    for word in ("bob", "team-b"):
        assert word in said


@pytest.mark.parametrize("command", [["stop"], ["signal", "TERM"]])
def test_an_action_on_a_job_one_may_only_read_is_refused(
    server: Server, job: str, command: list[str]
) -> None:
    done = server.run("ann", *command, job)
    assert (done.returncode, done.stdout) == (4, b"")
    said = done.stderr.decode()
    assert said.startswith(f"jobworker: {command[0]} refused to ")
    for word in ("ann", "team-a/alice"):
        assert word in said


@pytest.mark.parametrize(
    "command",
    [["status"], ["logs"], ["logs", "-f"], ["wait"], ["stop"], ["signal", "TERM"]],
    ids=" ".join,
)
def test_a_job_one_may_not_see_is_as_one_that_never_was(
    server: Server, job: str, command: list[str]
) -> None:
    never = job[:-1] + ("0" if job[-1] != "0" else "1")
    hidden = server.run("bob", *command, job)
    absent = server.run("bob", *command, never)
    # What a job's own code could be, wait ends with for no other reason.
    code = 125 if command == ["wait"] else 3
    assert hidden.returncode == absent.returncode == code
    assert hidden.stderr.decode().replace(job, "JOB") == absent.stderr.decode().replace(
        never, "JOB"
    )
    assert hidden.stdout == absent.stdout == b""


def test_a_list_shows_only_what_one_may_see(server: Server, job: str) -> None:
    assert job in server.ask("alice", "list", "-q").split()
    assert job in server.ask("ann", "list", "-q").split()
    assert job not in server.ask("bob", "list", "-q").split()


def test_another_tenants_name_is_refused(server: Server) -> None:
    done = server.run("alice", "start", "--tenant", "team-b", "true")
    assert done.returncode in (2, 4)
    assert b"team-b" in done.stderr
