"""A service whose stderr is closed, full, or read by nobody: it goes on, and so do its jobs."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import POLICY
from tests.support.server import (
    JOBWORKER,
    Server,
    configure,
    leaving_no_process,
    own_address,
)
from tests.support.waiting import until

DEADLINE_SECONDS = 60


@contextmanager
def stderr_of(state: str) -> Iterator[int | None]:
    """A descriptor that takes nothing; None for none."""
    if state == "closed":
        yield None
        return
    if state == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        read, descriptor = os.pipe()
        os.close(read)
    yield descriptor
    os.close(descriptor)


@contextmanager
def serving(directory: Path, state: str) -> Iterator[Server]:
    """A server with such a stderr; one that is closed has no stdin and stdout either."""
    host = own_address()
    authority = configure(directory, host, POLICY, "")
    users = {"alice": authority.client("alice", ["team-a"])}
    config = directory / "server.yaml"
    closed = "<&- >&- 2>&-" if state == "closed" else ""
    with stderr_of(state) as stderr, leaving_no_process():
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$0" serve --config "$1" {closed}', JOBWORKER, config],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
        server = Server(directory, host, authority, users, process, [])
        try:
            until(lambda: server.run("alice", "whoami").returncode == 0)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(DEADLINE_SECONDS) == 0
            finally:
                process.kill()


def kill_service(server: Server, name: str) -> None:
    """SIGKILL the supervisor or the front, which the keeper tells of."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == [f"jobworker: {name}"]:
                process.kill()


@pytest.mark.parametrize("state", ["closed", "full", "broken"])
def test_it_serves_and_outlives_its_parts(tmp_path: Path, state: str) -> None:
    """The keeper, which every job hangs on, ended with the first word it could not say."""
    with serving(tmp_path, state) as server:
        done = server.run("alice", "run", "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
        os.mkfifo(go := tmp_path / "go")
        job = server.ask("alice", "start", "sh", "-c", f"read code < {go}; exit $code")
        for name in ("supervisor", "front"):
            kill_service(server, name)
        until(lambda: server.run("alice", "status", job).returncode == 0)
        go.write_text("5\n")
        assert server.run("alice", "wait", job).returncode == 5
