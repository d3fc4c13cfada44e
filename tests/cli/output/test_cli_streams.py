"""Every command with its standard streams closed, full, or with nobody at the other end."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from click import Context

from jobworker.cli.main import cli
from tests.support.server import JOBWORKER, Server

DEADLINE_SECONDS = 60
TRACES = (b"Traceback", b"Exception ignored", b'File "')


@pytest.fixture(scope="module")
def commands(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """A command line of each subcommand, and of the command itself; they want no order."""
    scratch = tmp_path_factory.mktemp("scratch")
    job = server.ask("alice", "start", "sh", "-c", "echo out; echo err >&2")
    server.ask("alice", "wait", job)
    other = server.ask("alice", "start", "echo", "other")
    running = server.ask("alice", "start", "sleep", "1000")
    policy = str(server.directory / "policy.yaml")
    log = scratch / "audit"
    log.mkdir()
    ca = ("--dir", str(scratch / "ca"))
    for words in (["init"], ["issue", "--cn", "alice"]):
        subprocess.run([JOBWORKER, "ca", *words, *ca], check=True, capture_output=True)
    lines = [
        [],
        ["--help"],
        ["--version"],
        ["nonesuch"],
        ["start", "true"],
        ["start", "--help"],
        ["run", "sh", "-c", "echo out; echo err >&2"],
        ["run", "-o", "json", "echo", "hi"],
        ["stop", job],
        ["signal", "CONT", running],
        ["status", job],
        ["wait", job],
        ["list"],
        ["list", "-o", "json"],
        ["stats"],
        ["logs", job],
        ["logs", "-t", job],
        ["logs", "-o", "json", job],
        ["logs", "-f", job, other],
        ["rm", "nonesuch"],
        ["prune"],
        ["prune", "--force", "--older-than", "1d"],
        ["whoami"],
        ["can-i", "stop", job],
        ["can-i", "--list"],
        ["serve", "--config", "/nonexistent"],
        ["ca", "list", *ca],
        ["policy", "check", policy],
        ["policy", "convert", policy],
        ["audit", "verify", str(log)],
        ["completion", "bash"],
        ["version"],
    ]
    named = {words[0] for words in lines if words}
    return lines + [
        [name, "--help"] for name in cli.list_commands(Context(cli)) if name not in named
    ]


Redirect = Callable[[], Iterator[int]]


@contextmanager
def full() -> Iterator[int]:
    """A descriptor of a disk that has no room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def broken() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def closing(*descriptors: int) -> str:
    """The redirections of a shell that close descriptors."""
    return " ".join(f"{descriptor}>&-" for descriptor in descriptors)


def called(
    server: Server, words: list[str], redirections: str, **streams: int
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command in a shell with redirections."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {redirections}', JOBWORKER, *words],
        env=server.environment("alice") | {"TMPDIR": str(server.directory / "tmp")},
        timeout=DEADLINE_SECONDS,
        check=False,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        | streams,
    )


def each(
    server: Server, commands: list[list[str]], redirections: str, **streams: int
) -> Iterator[tuple[list[str], "subprocess.CompletedProcess[bytes]"]]:
    """Run all commands so; no traceback may come out, nor be kept in a file."""
    kept = server.directory / "tmp"
    kept.mkdir(exist_ok=True)
    with ThreadPoolExecutor(3) as pool:
        runs = [
            (words, pool.submit(called, server, words, redirections, **streams))
            for words in commands
        ]
        for words, run in runs:
            done = run.result()
            said = (done.stdout or b"") + (done.stderr or b"")
            assert not any(trace in said for trace in TRACES), (words, said)
            # 120 is what Python ends with when it cannot flush at its end.
            assert 0 <= done.returncode < 128, (words, done)
            assert done.returncode not in (7, 120), (words, done)
            yield words, done
    assert list(kept.iterdir()) == []


def writes(words: list[str]) -> bool:
    """Whether there is something for stdout."""
    quiet = (["nonesuch"], ["rm", "nonesuch"], ["serve", "--config", "/nonexistent"], ["prune"], [])
    return words not in quiet and words[:2] != ["prune", "--force"]


@pytest.mark.parametrize("state", ["closed", "full"])
def test_what_stdout_does_not_take_is_told(
    server: Server, commands: list[list[str]], state: str
) -> None:
    """A closed or full stdout ended in a traceback, or in nothing at all."""
    with full() as descriptor:
        redirections = closing(0, 1) if state == "closed" else ""
        streams = {} if state == "closed" else {"stdout": descriptor}
        why = b"Bad file descriptor" if state == "closed" else b"No space left on device"
        for words, done in each(server, commands, redirections, **streams):
            if writes(words):
                assert done.returncode == (125 if words[0] == "run" else 1), (words, done)
                assert b"cannot write the output to stdout: " + why in done.stderr, words
                assert done.stderr.count(b"cannot write") == 1, (words, done.stderr)


def test_a_broken_pipe_is_quiet(server: Server, commands: list[list[str]]) -> None:
    with broken() as descriptor:
        for words, done in each(server, commands, "", stdout=descriptor):
            if writes(words):
                assert (done.returncode, done.stderr) == (1, b""), (words, done)


@pytest.mark.parametrize("state", ["closed", "full", "broken"])
def test_without_stderr_all_else_is_the_same(
    server: Server, commands: list[list[str]], state: str
) -> None:
    """What was meant for a closed stderr went into the first file or socket that was opened."""
    with full() as no_room, broken() as no_reader:
        streams = {"full": {"stderr": no_room}, "broken": {"stderr": no_reader}}.get(state, {})
        for words, done in each(
            server, commands, closing(0, 2) if state == "closed" else "", **streams
        ):
            if words[:1] in (["status"], ["list"], ["whoami"], ["version"], ["--help"]):
                assert done.returncode == 0, (words, done)
                assert done.stdout, words


def test_a_job_whose_id_cannot_be_told_is_told_of(server: Server) -> None:
    done = called(server, ["start", "sleep", "1000"], closing(1))
    newest = server.ask("alice", "list", "-q", "-n", "1")
    assert f"; job {newest} has been started\n" in done.stderr.decode()


def test_a_fault_of_the_command_is_a_sentence_and_a_file(tmp_path: Path) -> None:
    script = (
        "from jobworker.cli import main\n"
        "def fail(**_): raise KeyError('colour')\n"
        "main.cli.main = fail\n"
        "main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    (kept,) = tmp_path.iterdir()
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == (
        f"jobworker: a fault of this command: KeyError: 'colour'; please report it, with {kept}\n"
    )
    assert "in fail" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
