"""A server that cannot serve says why in sentences, and ends for good."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import POLICY
from tests.support.server import JOBWORKER, PORT, configure, leaving_no_process, own_address

DEADLINE_SECONDS = 60
# EX_CONFIG of sysexits.h, as the unit in deploy/ expects it.
REFUSED = 78


def port_in_use(_: Path, host: str) -> socket.socket:
    return socket.create_server((host, PORT))


def rubbish_for_a_journal(directory: Path, _: str) -> None:
    (directory / "state").mkdir()
    (directory / "state" / "journal.sqlite").write_bytes(b"\xff" * 8192)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(port_in_use, "Address already in use"), (rubbish_for_a_journal, "is not a usable journal")],
)
def test_no_traceback_stands_under_the_reason(
    tmp_path: Path, spoil: Callable[[Path, str], socket.socket | None], said: str
) -> None:
    """The "Event loop is closed" of gRPC came after it, and a broken pipe's traceback."""
    host = own_address()
    configure(tmp_path, host, POLICY, "")
    spoiled = spoil(tmp_path, host)
    with leaving_no_process():
        done = subprocess.run(
            [JOBWORKER, "serve", "--config", tmp_path / "server.yaml"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    if spoiled is not None:
        spoiled.close()
    assert done.returncode == REFUSED, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
