"""One's certificate while commands run: it ends, it is renewed, it is about to end."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.pki import Issued
from tests.support.server import JOBWORKER, Server

DEADLINE_SECONDS = 60
# Long enough for a command to have started on a busy host.
SHORT = timedelta(seconds=15)


@contextmanager
def as_client(server: Server, issued: Issued, *words: str) -> "Iterator[subprocess.Popen[bytes]]":
    """The command as alice with another certificate."""
    environment = server.environment("alice") | {
        "JOBWORKER_CERT": str(issued.certificate),
        "JOBWORKER_KEY": str(issued.key),
    }
    with subprocess.Popen(
        [JOBWORKER, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Overtaken:
    """Three commands that run while their certificate ends; one has its files renewed before."""

    end: datetime
    issued: Issued
    followed: str
    logs: "subprocess.Popen[bytes]"
    run: "subprocess.Popen[bytes]"
    renewed: "subprocess.Popen[bytes]"
    go: Path


@pytest.fixture(scope="module")
def overtaken(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overtaken]:
    scratch = tmp_path_factory.mktemp("overtaken")
    end = (datetime.now(UTC) + SHORT).replace(microsecond=0)
    issued = server.authority.client(not_after=end)
    renewed = Issued(scratch / "alice.crt", scratch / "alice.key", 0)
    replace(renewed, issued)
    os.mkfifo(go := scratch / "go")
    job = server.ask("alice", "start", "sh", "-c", f"echo on; read line < {go}; echo $line")
    with (
        as_client(server, issued, "logs", "-f", job) as logs,
        as_client(server, issued, "run", "sh", "-c", "echo on; sleep 1000") as run,
        as_client(server, renewed, "logs", "-f", job) as follower,
    ):
        for process in (logs, run, follower):
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
        replace(renewed, server.authority.client())
        yield Overtaken(end, issued, job, logs, run, follower, go)


@pytest.mark.timeout(240)
def test_a_certificate_that_ends_meanwhile_is_told(server: Server, overtaken: Overtaken) -> None:
    """It was told as a lost connection, and given up after two minutes, with 5 or 125."""
    ran = server.ask("alice", "list", "-q", "-n", "1")
    for process, followed in ((overtaken.logs, overtaken.followed), (overtaken.run, ran)):
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 4, stderr
        assert stderr.decode().splitlines()[-1] == (
            f"jobworker: gave up on the output of {followed}: the server does not accept the "
            f"certificate {overtaken.issued.certificate}: it expired at "
            f"{overtaken.end:%Y-%m-%d %H:%M:%S} UTC; get a new one; the job goes on"
        )
        assert "running" in server.ask("alice", "status", followed)


@pytest.mark.timeout(240)
def test_a_renewed_certificate_is_taken_up_by_a_follower(
    server: Server, overtaken: Overtaken
) -> None:
    """It kept to the certificate that it was started with, and was refused once that had ended."""
    assert overtaken.logs.wait(DEADLINE_SECONDS) == 4
    overtaken.go.write_text("later\n")
    stdout, stderr = overtaken.renewed.communicate(timeout=DEADLINE_SECONDS)
    assert (overtaken.renewed.returncode, stdout) == (0, b"later\n"), stderr


def replace(used: Issued, by: Issued) -> None:
    """Put another pair of files in the place of those in use, as a renewal does."""
    for old, new in ((used.certificate, by.certificate), (used.key, by.key)):
        fresh = old.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(new.read_bytes())
        fresh.replace(old)


@pytest.fixture
def soon(server: Server) -> Issued:
    """A certificate that ends in 30 hours."""
    return server.authority.client(not_after=datetime.now(UTC) + timedelta(hours=30, minutes=1))


def whoami(server: Server, issued: Issued, home: Path) -> str:
    """What a command says on stderr; it must succeed."""
    environment = server.environment("alice") | {
        "JOBWORKER_CERT": str(issued.certificate),
        "JOBWORKER_KEY": str(issued.key),
        "HOME": str(home),
    }
    done = subprocess.run(
        [JOBWORKER, "whoami"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    return done.stderr.decode()


def test_a_certificate_that_is_about_to_end_is_warned_of_once_a_day(
    server: Server, soon: Issued, tmp_path: Path
) -> None:
    """Nothing was said before it had ended."""
    said = whoami(server, soon, tmp_path)
    assert said.startswith(f"jobworker: warning: your certificate {soon.certificate} ends in 1d6h")
    assert " UTC; get a new one: by `jobworker cert renew` where" in said
    assert whoami(server, soon, tmp_path) == ""
    (mark,) = (tmp_path / ".cache" / "jobworker").iterdir()
    yesterday = datetime.now(UTC).timestamp() - 86400 - 1
    os.utime(mark, (yesterday, yesterday))
    assert "warning" in whoami(server, soon, tmp_path)


def test_where_nothing_can_be_noted_it_is_warned_of_each_time(
    server: Server, soon: Issued, tmp_path: Path
) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()
    assert "warning" in whoami(server, soon, nowhere)
    assert "warning" in whoami(server, soon, nowhere)


def test_a_certificate_that_is_good_for_long_is_not_warned_of(
    server: Server, tmp_path: Path
) -> None:
    good = server.authority.client(not_after=datetime.now(UTC) + timedelta(days=7, hours=1))
    assert whoami(server, good, tmp_path) == ""


def test_the_client_brings_nothing_of_the_server() -> None:
    script = "import sys, jobworker.client.connection, jobworker.client.follow; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert "grpc" in loaded
    assert not loaded & {"casbin", "uvloop", "cryptography", "click", "yaml", "msgspec"}
    assert not {name for name in loaded if name.startswith("jobworker.")} - {
        name for name in loaded if name.startswith(("jobworker.client", "jobworker.proto"))
    }
