"""Leaving a job on its terminal, and coming back to it."""

import os
import signal
import termios

import pytest

from tests.support.server import Server
from tests.support.session.terminal import Terminal, on_terminal
from tests.support.waiting import until

LEAVE = "\x1d\x1d\x1d"
SHELL = ("run", "-it", "-e", "PS1=ready$ ", "bash", "--norc")


def job_of(server: Server) -> str:
    """The newest job."""
    return server.ask("alice", "list").splitlines()[1].split()[0]


def left(terminal: Terminal) -> str:
    """Leave, and return the job."""
    terminal.type(LEAVE)
    assert terminal.end() == 0
    words = terminal.seen.decode().rsplit("left: job ", 1)[1].split()
    return words[0]


def test_leave_and_come_back(server: Server) -> None:
    with on_terminal(server, "alice", *SHELL) as shell:
        shell.until(r"^ready\$")
        shell.type("value=42\r")
        shell.until("value=42")
        job = left(shell)
    with on_terminal(server, "alice", "attach", job, rows=20, columns=70) as again:
        again.until("leaves job")
        again.type("echo value is $value; stty size\r")
        again.until("^value is 42")
        again.until("^20 70")
        again.type("exit 3\r")
        assert again.end() == 3


def test_two_watch_and_one_types(server: Server) -> None:
    with on_terminal(server, "alice", *SHELL) as shell:
        shell.until(r"^ready\$")
        shell.type("echo id $JOBWORKER_JOB_ID\r")
        job = shell.until("^id ").split()[1]
        with (
            on_terminal(server, "alice", "attach", "--read-only", "-n", "1", job) as one,
            on_terminal(server, "alice", "attach", "--read-only", "-n", "1", job) as two,
        ):
            one.until("ready")
            two.until("ready")
            for mark in ("first", "second"):
                shell.type(f"echo {mark}-line\r")
                one.until(f"^{mark}-line")
                two.until(f"^{mark}-line")
            one.type("nothing\r")
            # Not without asking for it: another types.
            refused = server.run("alice", "send", job, "echo no")
            assert refused.returncode == 1
            assert b"alice" in refused.stderr
            one.type("\x03")
            assert one.end() == 0
            with on_terminal(server, "alice", "attach", "--take-over", job) as taker:
                shell.until("what you type is lost")
                taker.type("echo $((20 + 1))-taken; exit 4\r")
                taker.until("^21-taken")
                assert taker.end() == 4
            two.until("21-taken")
            assert two.end() == 4
            assert shell.end() == 4
    assert b"nothing" not in two.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_terminal_is_put_back_whatever_ends_the_command(server: Server, number: int) -> None:
    """The job goes on."""
    with on_terminal(server, "alice", *SHELL) as shell:
        before = termios.tcgetattr(shell.process.child_fd)[:4]
        shell.until(r"^ready\$")
        shell.type("echo id $JOBWORKER_JOB_ID\r")
        job = shell.until("^id ").split()[1]
        raw = termios.tcgetattr(shell.process.child_fd)[:4]
        assert raw != before
        shell.process.kill(number)
        until(lambda: termios.tcgetattr(shell.process.child_fd)[:4] == before)
    assert "running" in server.ask("alice", "status", job)
    server.ask("alice", "stop", job)


def test_a_job_that_has_ended_or_takes_nothing(server: Server) -> None:
    job = server.ask("alice", "start", "true")
    server.end("alice", job)
    gone = server.run("alice", "attach", job)
    assert (gone.returncode, b"has ended" in gone.stderr) == (1, True)
    deaf = server.ask("alice", "start", "-i", "sh", "-c", "exec <&-; echo closed; sleep 1000")
    until(lambda: server.ask("alice", "logs", deaf) == "closed")
    assert server.run("alice", "send", deaf, "first").returncode == 1
    late = server.run("alice", "send", deaf, "x")
    assert (late.returncode, b"takes no more input" in late.stderr) == (1, True)
    none = server.ask("alice", "start", "sleep", "1000")
    refused = server.run("alice", "send", none, "x")
    assert (refused.returncode, b"without an input" in refused.stderr) == (1, True)
    server.ask("alice", "stop", deaf, none)


def test_a_start_with_a_terminal_waits_for_who_attaches(server: Server) -> None:
    job = server.ask("alice", "start", "-t", "sh", "-c", "read x; echo got $x; tty -s")
    with on_terminal(server, "alice", "attach", job) as terminal:
        terminal.until("leaves job")
        terminal.type("it\r")
        terminal.until("^got it")
        assert terminal.end() == 0
    assert os.linesep.join(["it", "got it"]) == server.ask("alice", "logs", job).replace("\r", "")
