"""One service at a time on a state directory, and who it is."""

import fcntl
import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

# The keeper is there, and keeps jobs, but runs neither supervisor nor front.
DORMANT = "dormant"
SERVING = "serving"
# What is told fills so many bytes: who neither shrinks nor grows a file needs no room on a disk.
_BYTES = 64


class Holder(NamedTuple):
    """The keeper that holds a directory: `state` is SERVING or DORMANT."""

    pid: int
    state: str


class StateLock:
    """The lock of a state directory, for as long as this process lives."""

    def __init__(self, state_dir: Path) -> None:
        """Make the directory (0711 so that the front may pass through) and take its lock.

        Raises BlockingIOError when another service has it, or another OSError.
        """
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(state_dir / "lock", flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise

    def tell(self, state: str) -> None:
        """Let others see who holds the lock, and in which state. Raises OSError."""
        holder = json.dumps(Holder(os.getpid(), state)).encode()
        os.pwrite(self._descriptor, holder.ljust(_BYTES), 0)
        os.ftruncate(self._descriptor, _BYTES)


def holder_of(state_dir: Path) -> Holder | None:
    """The keeper that holds the directory; None when nobody does."""
    path = state_dir / "lock"
    if not path.exists():
        return None
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = lock.read()
            return Holder(*json.loads(text)) if text else None
    return None


def signal_holder(state_dir: Path, number: signal.Signals) -> int | None:
    """Signal the keeper that holds the directory; a pidfd of it, None when there is none."""
    holder = holder_of(state_dir)
    if holder is None:
        return None
    pidfd = os.pidfd_open(holder.pid)
    if holder_of(state_dir) != holder:
        # It ended meanwhile, and its PID may be another process's.
        os.close(pidfd)
        return None
    signal.pidfd_send_signal(pidfd, number)
    return pidfd
