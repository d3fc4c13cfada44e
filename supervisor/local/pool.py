"""Launchers kept ready, so that a start finds a process that only has to execute."""

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jobworker.supervisor.host.cgroup import Cgroup
from jobworker.supervisor.keeper import packets

log = logging.getLogger(__name__)

# Refilling waits so long while there are some left, so that the forks do not
# compete with the start that made room.
REFILL_SECONDS = 0.01
# After a fork that failed (EAGAIN, ENOMEM) the next try waits so long.
RETRY_SECONDS = 0.2


class _Coming(NamedTuple):
    """What is held for a launcher that has not said that it is ready."""

    cgroup: str
    stdout: int
    stderr: int


@dataclass(frozen=True)
class Launcher:
    """A forked process that waits for orders on `control`; `cgroup` is its own or empty.

    `stdout` and `stderr` are the read ends of its pipes.
    """

    control: socket.socket
    pid: int
    start: int
    pidfd: int
    cgroup: str
    stdout: int
    stderr: int


class LauncherPool:
    """Owns the launchers that have no job. `changed` is called when one is ready or has failed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fork: Callable[[tuple[int, int, int], str], None],
        cgroup_base: Path | None,
        spare: int,
        pipe_bytes: int,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._fork = fork
        self._base = cgroup_base
        self._spare = spare
        self._pipe_bytes = pipe_bytes
        self._changed = changed
        self._idle: deque[Launcher] = deque()
        self._coming: dict[socket.socket, _Coming] = {}
        # Of launchers that were still ending when last looked at.
        self._leftover: list[Cgroup] = []
        self._refill_due: asyncio.TimerHandle | None = None
        self._closed = False
        self._names = itertools.count()
        self._prefix = f"{os.getpid()}-{os.urandom(4).hex()}"
        # A fork failed since one last succeeded.
        self.failing = False

    def take(self) -> Launcher | None:
        """A ready launcher, now the caller's, or None: then `changed` will be called."""
        self._refill_soon(REFILL_SECONDS if len(self._idle) > self._spare // 2 else 0.0)
        if not self._idle:
            return None
        launcher = self._idle.popleft()
        self._loop.remove_reader(launcher.control.fileno())
        return launcher

    def reclaim(self, cgroup: str) -> None:
        """Remove the cgroup of a launcher that ends without a job, at the latest when refilling."""
        if cgroup and not Cgroup(Path(cgroup)).remove():
            self._leftover.append(Cgroup(Path(cgroup)))

    def refill(self) -> None:
        """Ask for as many launchers as are missing."""
        self._refill_due = None
        self._leftover = [cgroup for cgroup in self._leftover if not cgroup.remove()]
        while not self._closed and len(self._idle) + len(self._coming) < self._spare:
            try:
                self._fork_one()
            except OSError as error:
                log.warning("cannot prepare a launcher: %s", error.strerror)
                self._failed()
                return

    def _fork_one(self) -> None:
        """Ask the keeper for one. Raises OSError (EMFILE, ENFILE, ENOMEM, ENOSPC)."""
        with contextlib.ExitStack() as undo:
            ours, theirs = packets.pair()
            undo.callback(ours.close)
            with theirs:
                stdout, out = self._pipe()
                undo.callback(packets.close_all, (stdout, out))
                stderr, err = self._pipe()
                undo.callback(packets.close_all, (stderr, err))
                cgroup = self._make_cgroup()
                undo.pop_all()
                self._coming[ours] = _Coming(cgroup, stdout, stderr)
                self._loop.add_reader(ours.fileno(), self._arrived, ours)
                self._fork((theirs.fileno(), out, err), cgroup)
                packets.close_all((out, err))

    def _pipe(self) -> tuple[int, int]:
        """A pipe for output that holds `pipe_bytes`, or what the user may still have.

        pipe(7), /proc/sys/fs/pipe-user-pages-soft: only root may go past it.
        """
        read, write = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, self._pipe_bytes)
        return read, write

    def close(self) -> None:
        """End every launcher that has no job."""
        self._closed = True
        for control, coming in self._coming.items():
            self._forget(control, coming)
        self._coming.clear()
        while self._idle:
            launcher = self._idle.popleft()
            self._discard(launcher)

    def _refill_soon(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._refill_due is not None:
            if self._refill_due.when() <= due:
                return
            self._refill_due.cancel()
        self._refill_due = self._loop.call_at(due, self.refill)

    def _make_cgroup(self) -> str:
        if self._base is None:
            return ""
        directory = self._base / f"{self._prefix}-{next(self._names)}"
        directory.mkdir()
        return str(directory)

    def _arrived(self, control: socket.socket) -> None:
        coming = self._coming.pop(control)
        match packets.receive(control):
            case (("ready", int(pid), int(start)), (pidfd,)):
                launcher = Launcher(control, pid, start, pidfd, *coming)
                self._idle.append(launcher)
                self._loop.remove_reader(control.fileno())
                self._loop.add_reader(control.fileno(), self._died, launcher)
                self.failing = False
                self._changed()
            case _:
                self._forget(control, coming)
                self._failed()

    def _failed(self) -> None:
        self.failing = True
        self._refill_soon(RETRY_SECONDS)
        self._changed()

    def _died(self, launcher: Launcher) -> None:
        """A launcher without orders has ended: somebody killed it."""
        self._idle.remove(launcher)
        self._discard(launcher)
        self._refill_soon(RETRY_SECONDS)

    def _discard(self, launcher: Launcher) -> None:
        """Let a launcher end, and forget it."""
        self._loop.remove_reader(launcher.control.fileno())
        launcher.control.close()
        packets.close_all((launcher.pidfd, launcher.stdout, launcher.stderr))
        self.reclaim(launcher.cgroup)

    def _forget(self, control: socket.socket, coming: _Coming) -> None:
        self._loop.remove_reader(control.fileno())
        control.close()
        packets.close_all((coming.stdout, coming.stderr))
        self.reclaim(coming.cgroup)
