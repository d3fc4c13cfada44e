"""`jobworker exec`: a program within a job, as docker exec has it."""

import shutil

import pytest

from tests.support.server import Server
from tests.support.session.terminal import on_terminal

CTRL_C, CTRL_Z = "\x03", "\x1a"


def started(server: Server, *options: str) -> str:
    return server.ask("alice", "start", *options, "--", "sleep", "1000").strip()


@pytest.mark.parametrize("isolation", ["none", "private"])
def test_a_shell_on_a_terminal(server: Server, isolation: str) -> None:
    """With job control: it is the leader of its session, also where that is in a sandbox."""
    if isolation == "private" and shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt install bubblewrap")
    job = started(server, "--isolation", isolation, "-e", "PLACE=here", "-w", "/usr")
    words = ("exec", "-it", "-e", "PS1=ready$ ", job, "bash", "--norc")
    with on_terminal(server, "alice", *words) as bash:
        bash.until(r"^ready\$")
        bash.type("echo in $PWD, $PLACE\r")
        bash.until("^in /usr, here")
        bash.type("sleep 100\r")
        bash.until(r"sleep 100")
        bash.type(CTRL_Z)
        bash.until("Stopped")
        bash.type("fg\r")
        bash.until("fg")
        bash.type(CTRL_C)
        bash.type("echo code $?\r")
        bash.until("^code 130")
        bash.resize(30, 100)
        bash.type("stty size\r")
        bash.until("^30 100")
        bash.type("exit 7\r")
        assert bash.end() == 7
    server.ask("alice", "stop", job)


def test_its_directory_is_found_from_the_jobs(server: Server) -> None:
    """--help said: from the user's home."""
    job = started(server, "-w", "/usr")
    assert server.ask("alice", "exec", job, "pwd") == "/usr"
    assert server.ask("alice", "exec", "-w", "bin/..", job, "pwd").startswith("/usr")
    assert "relative to the job's" in " ".join(server.ask("alice", "exec", "--help").split())
    server.ask("alice", "stop", job)


def test_without_a_terminal(server: Server) -> None:
    job = started(server)
    done = server.run("alice", "exec", job, "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    done = server.run("alice", "exec", job, "no-such-program")
    assert done.returncode == 127
    inner = server.ask("alice", "exec", "-d", job, "sleep", "1000").strip()
    assert f"Within:    job {job}\n" in server.ask("alice", "status", inner)
    server.ask("alice", "stop", job)
    assert "stopped" in server.ask("alice", "status", inner)
    done = server.run("alice", "exec", job, "true")
    assert done.returncode == 125
    assert b"has ended: nothing starts within it" in done.stderr


@pytest.mark.parametrize("words", [["exec"], ["exec", "JOB"], ["exec", "JOB", "--"]])
def test_what_is_left_out_is_told(server: Server, words: list[str]) -> None:
    done = server.run("alice", *words)
    assert done.returncode == 2
    assert b"Missing argument" in done.stderr
