"""An upgrade that could not serve leaves the service as it was, and says why."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobworker.supervisor.control import running_config, upgrade_keeper
from jobworker.supervisor.keeper.config import KeeperConfig
from jobworker.supervisor.keeper.upgrade import upgrade_note
from tests.support.chaos import services
from tests.support.server import JOBWORKER, PORT, Server, own_address

DEADLINE_SECONDS = 60
BAD_SETTINGS = 78


def upgrade(server: Server, replaced: str = "", by: str = "") -> "subprocess.CompletedProcess[str]":
    """`serve --upgrade` with other settings; the file is as before afterwards."""
    file = server.directory / "server.yaml"
    before = file.read_text()
    file.write_text(before.replace(replaced, by) if replaced else before + by)
    try:
        return subprocess.run(
            [JOBWORKER, "serve", "--upgrade", "--config", file],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    finally:
        file.write_text(before)


def pids(server: Server) -> set[int]:
    return {process.pid for process in services(server)}


@contextmanager
def taken() -> Iterator[str]:
    """An address that somebody else listens on."""
    host = own_address()
    with socket.create_server((host, PORT)):
        yield f"{host}:{PORT}"


@pytest.mark.parametrize("setting", ["listen", "metrics.listen"])
def test_an_address_in_use(server: Server, setting: str) -> None:
    """It ended with 0 and no word, and the service was down."""
    before = pids(server)
    with taken() as address:
        if setting == "listen":
            done = upgrade(server, server.address, address)
        else:
            done = upgrade(server, by=f"metrics: {{listen: '{address}'}}\n")
    assert done.returncode == BAD_SETTINGS
    assert f"{setting}: cannot listen on {address}: Address already in use" in done.stderr
    assert f"{server.directory}/server.yaml:" in done.stderr
    # Neither has been replaced.
    assert pids(server) == before
    server.ask("alice", "whoami")


def test_every_address_of_a_port_that_the_service_itself_has(server: Server) -> None:
    done = upgrade(server, server.address, f"0.0.0.0:{PORT}")
    assert done.returncode == BAD_SETTINGS
    assert f"the service itself listens on {server.address} until it ends" in done.stderr
    server.ask("alice", "whoami")


@pytest.mark.skipif(os.geteuid() != 0, reason="as whom it listens is told by root")
def test_it_is_tried_as_whom_the_front_will_be(server: Server) -> None:
    """Ports below 1024 are root's (ip(7)), unless the host says otherwise."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("here they are everybody's")
    port = f"{own_address()}:80"
    by = f"front_user: games\nmetrics: {{listen: '{port}'}}\n"
    assert f"cannot listen on {port}: Permission denied" in upgrade(server, by=by).stderr


def test_it_returns_when_the_new_front_serves(server: Server) -> None:
    """It returned when the old one had been told to end."""
    before = pids(server)
    done = upgrade(server)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(pids(server)) == 2
    assert not before & pids(server)
    server.ask("alice", "whoami")


def with_bad_front(config: KeeperConfig, address: str, directory: Path) -> KeeperConfig:
    del directory
    assert config.front is not None
    settings = {**json.loads(config.front.config), "listen": address}
    return config._replace(front=config.front._replace(config=json.dumps(settings)))


def with_bad_supervisor(config: KeeperConfig, address: str, directory: Path) -> KeeperConfig:
    del address
    (directory / "journal.sqlite").write_bytes(b"\xff" * 8192)
    settings = {**json.loads(config.supervisor.config), "state_dir": str(directory)}
    return config._replace(supervisor=config.supervisor._replace(config=json.dumps(settings)))


@pytest.mark.parametrize("spoiled", [with_bad_front, with_bad_supervisor])
@pytest.mark.parametrize("jobs", [0, 1])
def test_what_shows_only_when_it_is_tried(
    server: Server, tmp_path: Path, jobs: int, spoiled: object
) -> None:
    """The keeper ended, with all, or tried again for ever; now it goes back."""
    assert callable(spoiled)
    job = server.ask("alice", "start", "--", "sleep", "1000") if jobs else ""
    state = server.directory / "state"
    before = running_config(state)
    with taken() as address:
        note = upgrade_keeper(spoiled(before, address, tmp_path))
    assert note is not None
    assert note.refused
    assert "its settings cannot be served with (exit status 78)" in note.outcome
    assert running_config(state) == before
    server.ask("alice", "whoami")
    if job:
        assert '"state": "running"' in server.ask("alice", "status", "-o", "json", job)
        server.ask("alice", "stop", job)
    # And the next one goes well.
    assert upgrade(server).returncode == 0


def test_a_keeper_that_cannot_tell(server: Server) -> None:
    """What another keeper has left in the directory is none of this one's."""
    state = server.directory / "state"
    assert upgrade_note(state, server.process.pid) is not None
    # As all that is in the directory it is nobody else's to read.
    assert (state / "upgrade.json").stat().st_mode & 0o077 == 0
    assert upgrade_note(state, 1) is None
    assert upgrade_note(server.directory, server.process.pid) is None
