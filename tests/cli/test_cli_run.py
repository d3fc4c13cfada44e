"""`jobworker run`: a job in the foreground, its exit code, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.server import Server

DEADLINE_SECONDS = 30
# Says when it can be interrupted; a TERM that it takes ends it with 9.
POLITE = "trap 'echo bye; exit 9' TERM; echo on; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; echo on; while :; do sleep 0.1; done"


@contextmanager
def running(server: Server, script: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A `jobworker run` of the script that has said "on"."""
    with server.popen("alice", "run", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        yield process


def job_of(stderr: bytes) -> str:
    """The job that a sentence on stderr names."""
    found = re.search(rb"job ([0-9a-f-]{36})", stderr)
    assert found, stderr
    return found[1].decode()


def reason(server: Server, job: str) -> tuple[str, int]:
    """Why the job ended, and with what exit code, once it has."""
    server.end("alice", job)
    status = json.loads(server.ask("alice", "status", "-o", "json", job))
    return status["reason"], status["exit_code"]


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_it_writes_the_output_and_ends_with_the_jobs_code(server: Server, code: int) -> None:
    """What the job wrote to stderr came out on stdout."""
    done = server.run("alice", "run", "sh", "-c", f"printf 'a\\0b'; printf c >&2; exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, b"a\0b", b"c")


def test_merged_all_comes_on_stdout(server: Server) -> None:
    done = server.run("alice", "run", "--merge", "sh", "-c", "printf ab; printf c >&2")
    assert (sorted(done.stdout), done.stderr) == (sorted(b"abc"), b"")


def test_each_stream_is_exact(server: Server, tmp_path: Path) -> None:
    """Also of much output, to the last byte, and when something is left behind that could go on."""
    written = {name: os.urandom(5_000_000) for name in ("out", "err")}
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    script = f"cat {tmp_path}/out & cat {tmp_path}/err >&2; wait $!; sleep 1000 &"
    done = server.run("alice", "run", "sh", "-c", script)
    job = job_of(done.stderr)
    server.ask("alice", "stop", job)
    assert done.returncode == 0
    assert done.stdout == written["out"]
    assert done.stderr[: len(written["err"])] == written["err"]


def test_a_job_killed_by_a_signal_ends_it_as_a_shell_would(server: Server) -> None:
    done = server.run("alice", "run", "sh", "-c", "kill -SEGV $$")
    assert done.returncode == 128 + signal.SIGSEGV


def test_it_waits_for_what_is_left_behind_when_asked_to(server: Server) -> None:
    script = "(sleep 0.5; echo late) & echo early"
    done = server.run("alice", "run", "--wait-output", "sh", "-c", script)
    assert (done.stdout, done.stderr) == (b"early\nlate\n", b"")


@pytest.mark.parametrize("redirected", ["", "2>/dev/null", ">/dev/null"])
def test_what_it_leaves_behind_does_not_keep_it(server: Server, redirected: str) -> None:
    """It waited for a daemon that kept the pipe open, for ever."""
    done = server.run("alice", "run", "sh", "-c", f"sleep 1000 {redirected} & echo early; exit 3")
    assert (done.returncode, done.stdout) == (3, b"early\n")
    job = job_of(done.stderr)
    assert f"job {job} has ended, but its output goes on" in done.stderr.decode()
    status = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert (status["state"], status["output_complete"]) == ("ended", False)
    server.ask("alice", "stop", job)
    assert json.loads(server.ask("alice", "status", "-o", "json", job))["output_complete"]


def test_what_ends_right_after_it_is_not_told_of(server: Server) -> None:
    """Of several, so that a pause of a busy host decides nothing."""
    script = "(sleep 0.01; echo late) & echo early"
    runs = [server.run("alice", "run", "sh", "-c", script) for _ in range(5)]
    assert (b"early\nlate\n", b"") in [(done.stdout, done.stderr) for done in runs]


def test_as_json_the_last_line_is_the_job(server: Server) -> None:
    done = server.run("alice", "run", "-o", "json", "sh", "-c", "echo hi; exit 3")
    assert done.returncode == 3
    *chunks, job = map(json.loads, done.stdout.splitlines())
    (chunk,) = chunks
    assert datetime.fromisoformat(chunk.pop("time")).tzinfo
    assert chunk.pop("job") == job["id"]
    assert chunk == {"offset": 0, "data": "aGkK", "stream": "stdout"}
    assert (job["state"], job["exit_code"]) == ("ended", 3)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("nonesuch", 127),
        ("/nonexistent/x", 127),
        ("/etc/passwd", 126),
        ("/etc/passwd/x", 126),
        ("/etc", 126),
    ],
)
def test_a_program_that_cannot_be_executed(server: Server, program: str, code: int) -> None:
    done = server.run("alice", "run", program)
    assert done.returncode == code
    assert program.encode() in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize("directory", ["/nonexistent", "/etc/passwd"])
def test_a_directory_it_cannot_change_to_is_not_the_programs_fault(
    server: Server, directory: str
) -> None:
    """A working directory that is not there ended it with 127, as if the program were not."""
    done = server.run("alice", "run", "-w", directory, "--", "pwd")
    assert done.returncode == 125
    assert f"cannot change to directory {directory}".encode() in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_the_job(server: Server, number: int) -> None:
    with running(server, POLITE) as process:
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    # The shell may say before it that TERM has ended its sleep, too.
    assert (process.returncode, stdout.splitlines()[-1]) == (9, b"bye")
    assert reason(server, job_of(stderr)) == ("stopped", 9)


def test_a_second_interrupt_kills_it(server: Server) -> None:
    with running(server, STUBBORN) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        first = process.stderr.readline()
        assert b"stopping job" in first
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 128 + signal.SIGKILL
    assert b"killing job" in stderr
    assert reason(server, job_of(first)) == ("stopped", 137)


def test_an_ignored_hangup_stays_ignored(server: Server) -> None:
    process = subprocess.Popen(
        ["nohup", "jobworker", "run", "sh", "-c", "echo on; sleep 0.5; echo done"],
        env=server.environment("alice"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            process.send_signal(signal.SIGHUP)
            assert process.communicate(timeout=DEADLINE_SECONDS)[0] == b"done\n"
        finally:
            process.kill()
    assert process.returncode == 0


def test_the_job_ends_when_nobody_reads_its_output(server: Server) -> None:
    with running(server, "echo on; exec yes") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        stderr = process.stderr.read()
        assert process.wait(DEADLINE_SECONDS) == 1

    assert stderr == b""
    newest = json.loads(server.ask("alice", "list", "-n", "1", "-o", "json"))
    assert newest["command"][-1].endswith("exec yes")
    assert reason(server, newest["id"]) == ("stopped", 128 + signal.SIGTERM)


def test_a_refused_start_is_told_as_ever_but_ends_with_125(server: Server) -> None:
    done = server.run("alice", "run", "--tenant", "team-b", "true")
    assert done.returncode == 125
    assert b"team-b" in done.stderr
