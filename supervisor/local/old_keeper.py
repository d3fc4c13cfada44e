"""Launches with a keeper of a release before births.py, which lives through an upgrade.

It forks a process that waits for its orders on a packet socket, says that it is
ready, and takes orders once. It keeps what it is told to keep, and nothing more.
Such keepers end with their services; then this file can go.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

from jobworker.supervisor.errors import SupervisorError
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.program import in_memory
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.launch import Launch
from jobworker.supervisor.local.local_job import LocalJob
from jobworker.supervisor.local.orders import new_pipe
from jobworker.supervisor.local.placement import Placement

# What it knows of a Spec.
_FIELDS = 8


class OldLaunch(Launch):
    """Told as ("failed", errno, step), a packet, the step in words."""

    def in_words(self, data: bytes) -> SupervisorError:
        """As in Launch."""
        _, number, step = json.loads(data)
        return self.error(int(number), str(step))


class OldOrders:
    """As Orders. Tells `made` (job ID, pid, start, pidfd), or `refused` (job ID, errno)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keeper: KeeperLink,
        placement: Placement,
        pipe_bytes: int,
        *,
        made: Callable[[str, int, int, int], None],
        refused: Callable[[str, int], None],
    ) -> None:
        self._loop = loop
        self._keeper = keeper
        self._placement = placement
        self._pipe_bytes = pipe_bytes
        self._made = made
        self._refused = refused

    def order(self, local: LocalJob) -> None:
        """As in Orders; what the process is to execute it is told when it is ready."""
        with ExitStack() as ends, ExitStack() as undo:
            stdout, stdout_write = new_pipe(self._pipe_bytes, undo, ends)
            stderr, stderr_write = new_pipe(self._pipe_bytes, undo, ends)
            control, theirs = packets.pair()
            ends.callback(theirs.close)
            undo.callback(control.close)
            given = (theirs.fileno(), stdout_write, stderr_write)
            self._keeper.tell(("fork", local.where.cgroup), given)
            undo.pop_all()
        local.output.open(stdout, stderr)
        local.launch = OldLaunch(control, local.job.request)
        self._loop.add_reader(control.fileno(), self._ready, local, control)

    def _ready(self, local: LocalJob, control: socket.socket) -> None:
        """The process is there, or there will be none."""
        self._loop.remove_reader(control.fileno())
        match packets.receive(control):
            case (("ready", int(pid), int(start)), (pidfd,)):
                kept = (control.fileno(), *local.output.pipes, pidfd)
                self._keeper.tell(("keep", local.job.id), kept)
                self._made(local.job.id, pid, start, pidfd)
                self.command(local)
            case _:
                self._refused(local.job.id, 0)

    def command(self, local: LocalJob) -> None:
        """Say what to execute. Harmless when it knows already, or is dead."""
        if local.launch is None:
            return
        known = self._placement.spec(local.job.request)[:_FIELDS]
        spec = in_memory("jobworker-spec", json.dumps(known).encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            packets.send(local.launch.report, ("launch",), (spec,))
        os.close(spec)

    def resumed(self, local: LocalJob, report: int) -> Launch:
        """A launch that another supervisor began: it may have had its orders, or not."""
        local.launch = OldLaunch(socket.socket(fileno=report), local.job.request)
        self.command(local)
        return local.launch
