"""A daemon that is run for the time of a measurement."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_SECONDS = 20.0
_LOOK_SECONDS = 0.01

# A TCP port of 127.0.0.1, or the path of a unix socket.
Address = int | Path


class DaemonFailed(Exception):
    """A daemon did not come up."""


class NotInstalled(Exception):
    """A peer that a part measures beside is not on this machine."""


@contextmanager
def running(command: Sequence[str], address: Address) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a daemon in the foreground until the block ends; begins when its address answers.

    Raises DaemonFailed when it ends before, or takes longer than READY_SECONDS.
    """
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as daemon:
        try:
            _await_answer(daemon, address)
            yield daemon
        finally:
            daemon.terminate()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await_answer(daemon: "subprocess.Popen[bytes]", address: Address) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(address):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise DaemonFailed(f"{daemon.args!r} does not answer on {address}; see above for why")
        time.sleep(_LOOK_SECONDS)


def _answers(address: Address) -> bool:
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.connect(str(address) if isinstance(address, Path) else ("127.0.0.1", address))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
