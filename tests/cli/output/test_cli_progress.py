"""The line about a long transfer: on a terminal that the output does not go to."""

import io
import os
import pty
import subprocess
from pathlib import Path

import pytest

from jobworker.cli.display.progress import Progress
from tests.support.server import JOBWORKER, Server


def test_it_appears_after_a_second_and_not_for_every_message() -> None:
    now = 0.0
    terminal = io.StringIO()
    progress = Progress(terminal, lambda: now)
    progress.add(1000)
    assert terminal.getvalue() == ""
    for tick in range(1, 41):
        now = tick / 20
        progress.add(2**20)
    shown = terminal.getvalue().split("\r\x1b[K")[1:]
    assert 5 <= len(shown) <= 6
    assert shown[0] == "20.0 MiB, 20.0 MiB/s"
    progress.clear()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_it_is_silent_without_a_terminal() -> None:
    progress = Progress(None, lambda: 1e9)
    progress.add(2**40)
    progress.clear()


@pytest.mark.parametrize("stdout_is_terminal", [False, True])
def test_who_sees_it(server: Server, tmp_path: Path, stdout_is_terminal: bool) -> None:
    job = server.ask("alice", "start", "sh", "-c", "echo on; sleep 4; echo off")
    ours, theirs = pty.openpty()
    with (tmp_path / "output").open("wb") as file:
        done = subprocess.run(
            [JOBWORKER, "logs", "-f", job],
            env=server.environment("alice"),
            stdin=subprocess.DEVNULL,
            stdout=theirs if stdout_is_terminal else file,
            stderr=theirs,
            timeout=60,
            check=False,
        )
    os.close(theirs)
    printed = _drain(ours)
    os.close(ours)
    assert done.returncode == 0
    if stdout_is_terminal:
        assert printed.replace(b"\r\n", b"\n") == b"on\noff\n"
    else:
        assert (tmp_path / "output").read_bytes() == b"on\noff\n"
        assert b"7 B, " in printed
        assert printed.endswith(b"\r\x1b[K")


def _drain(descriptor: int) -> bytes:
    printed = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            # A pty's end, once all has been read (EIO).
            return printed
        printed += piece
