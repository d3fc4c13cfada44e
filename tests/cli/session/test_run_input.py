"""`run -i`, `send` and `start --stdin`: what comes on stdin here is the job's."""

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.chaos import kill
from tests.support.server import JOBWORKER, Server
from tests.support.session.terminal import on_terminal
from tests.support.waiting import until

DEADLINE_SECONDS = 120


@contextmanager
def running(
    server: Server, *words: str, stdin: "IO[bytes] | int"
) -> "Iterator[subprocess.Popen[bytes]]":
    """The command with that as its stdin."""
    with subprocess.Popen(
        [JOBWORKER, *words],
        env=server.environment("alice"),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ran(server: Server, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """The command once it has ended."""
    return subprocess.run(
        [JOBWORKER, *words],
        env=server.environment("alice"),
        input=stdin,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_stdin_is_passed_on(server: Server) -> None:
    """`echo data | jobworker run -- wc -c` printed 0, without a word."""
    done = ran(server, "run", "-i", "--", "wc", "-c", stdin=b"data\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"5\n", b"")


def test_without_asking_nothing_is_read_and_that_is_told(server: Server, tmp_path: Path) -> None:
    """A loop that reads its input line by line keeps it."""
    (tmp_path / "lines").write_text("one\ntwo\n")
    loop = f'while read line; do "{JOBWORKER}" run -- echo got $line; done < {tmp_path / "lines"}'
    done = subprocess.run(
        ["sh", "-c", loop],
        env=server.environment("alice"),
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert done.stdout == b"got one\ngot two\n"
    # Behind the second line nothing is left.
    assert done.stderr.count(b"stdin is not passed on to the job; -i does that") == 1


def test_a_job_that_ends_ends_the_command_at_once(server: Server) -> None:
    words = ("run", "-i", "--", "sh", "-c", "exit 3")
    with open("/dev/zero", "rb") as endless, running(server, *words, stdin=endless) as process:
        assert process.wait(DEADLINE_SECONDS) == 3
        assert process.stderr is not None
        assert process.stderr.read() == b""
    with on_terminal(server, "alice", "run", "-i", "sh", "-c", "exit 3") as idle:
        assert idle.end() == 3


@pytest.mark.parametrize("victims", [("front",), ("supervisor",), ("front", "supervisor")])
def test_input_is_exact_whoever_dies(server: Server, victims: tuple[str, ...]) -> None:
    """No byte was lost or doubled, in either direction."""
    data = os.urandom(64 * 1024 * 1024)
    read, write = os.pipe()
    with running(server, "run", "-i", "--", "cat", stdin=read) as process:
        os.close(read)
        assert process.stdout is not None
        came = bytearray()

        def feed() -> None:
            with os.fdopen(write, "wb") as pipe:
                pipe.write(data)

        feeder = threading.Thread(target=feed)
        feeder.start()
        for number in range(6):
            wanted = (number + 1) * 8 * 1024 * 1024
            while len(came) < wanted:
                came += process.stdout.read1(1 << 20)
            kill(server, victims[number % len(victims)])
        came += process.stdout.read()
        feeder.join()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert hashlib.sha256(came).hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("victim", ["front", "supervisor"])
def test_typing_goes_on_whoever_dies(server: Server, victim: str) -> None:
    """Nothing typed was lost or came twice."""
    with on_terminal(
        server, "alice", "run", "-it", "sh", "-c", "stty -echo; echo ok; cat"
    ) as shell:
        shell.until("^ok")
        wanted = ""
        for number in range(30):
            line = f"line-{number}"
            wanted += f"{line}\r\n"
            shell.type(f"{line}\r")
            if number % 10 == 5:
                kill(server, victim)
            if number % 5 == 0:
                shell.until_bytes(f"{line}\r\n".encode())
        shell.type("\x04")
        assert shell.end() == 0
    typed = [line for line in shell.seen.split(b"\r\n") if line.startswith(b"line-")]
    assert typed == wanted.encode().split()


def test_send_text_bytes_and_the_end(server: Server) -> None:
    job = server.ask("alice", "start", "-i", "cat")
    server.ask("alice", "send", job, "two", "words")
    server.ask("alice", "send", "--no-newline", job, "no newline")
    assert ran(server, "send", "--eof", job, stdin=b"\xff\0bytes").returncode == 0
    assert server.end("alice", job) == "0"
    assert server.run("alice", "logs", job).stdout == b"two words\nno newline\xff\0bytes"


def test_a_stored_stdin_needs_nobody(server: Server, tmp_path: Path) -> None:
    """Its sender may go while the job has not begun to read."""
    data = os.urandom(20 * 1024 * 1024)
    (tmp_path / "data").write_bytes(data)
    go = tmp_path / "go"
    script = f"until [ -e {go} ]; do sleep 0.05; done; sha256sum"
    job = server.ask("alice", "start", "--stdin", str(tmp_path / "data"), "sh", "-c", script)
    kill(server, "supervisor")
    kill(server, "front")
    go.touch()
    assert server.end("alice", job) == "0"
    assert server.ask("alice", "logs", job).split()[0] == hashlib.sha256(data).hexdigest()
    stored = server.directory / "state" / "output" / job / "input"
    until(lambda: stored.stat().st_size == 0)


def test_a_terminal_needs_one_here(server: Server) -> None:
    done = ran(server, "run", "-it", "--", "sh", "-c", "tty; cat", stdin=b"data\n")
    assert (done.returncode, done.stdout) == (0, b"not a tty\ndata\n")
    assert b"the job runs on no terminal, as stdin is none" in done.stderr
    # For its output's sake alone it may have one.
    alone = ran(server, "run", "-t", "--", "tty")
    assert alone.stdout.startswith(b"/dev/pts/")
