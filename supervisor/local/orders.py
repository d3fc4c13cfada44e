"""Asking the keeper for a job's process."""

import contextlib
import fcntl
import os
import socket
from contextlib import ExitStack
from typing import Protocol

from jobworker.supervisor.keeper import packets
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.launch import Launch
from jobworker.supervisor.local.local_job import LocalJob
from jobworker.supervisor.local.placement import Placement
from jobworker.supervisor.local.programs import program_for


class Orders(Protocol):
    """Makes a job's pipes and its launch, and has its process made."""

    def order(self, local: LocalJob) -> None:
        """Do so. Raises OSError, and has made nothing then."""

    def resumed(self, local: LocalJob, report: int) -> Launch:
        """The launch of a job whose process there is, ordered by another supervisor."""


class Births:
    """Orders to a keeper as of births.py."""

    def __init__(self, keeper: KeeperLink, placement: Placement, pipe_bytes: int) -> None:
        self._keeper = keeper
        self._placement = placement
        self._pipe_bytes = pipe_bytes

    def order(self, local: LocalJob) -> None:
        """As in Orders."""
        spec = self._placement.spec(local.job.request)
        with ExitStack() as ends, ExitStack() as undo:
            made = program_for(spec)
            ends.callback(packets.close_all, made.files)
            program = made.program.to_memfd()
            ends.callback(os.close, program)
            stdout, stdout_write = new_pipe(self._pipe_bytes, undo, ends)
            stderr, stderr_write = new_pipe(self._pipe_bytes, undo, ends)
            report, theirs = packets.pair()
            ends.callback(theirs.close)
            undo.callback(report.close)
            kept = (stdout, stderr, report.fileno())
            given = (stdout_write, stderr_write, theirs.fileno())
            if len(made.files) > 1:
                local.told = os.dup(made.files[-1])
            packet = ("launch", local.job.id, local.where.cgroup)
            self._keeper.tell(packet, (program, *kept, *given, *made.files))
            undo.pop_all()
        local.output.open(stdout, stderr)
        local.launch = Launch(report, local.job.request)

    def resumed(self, local: LocalJob, report: int) -> Launch:
        """As in Orders."""
        local.launch = Launch(socket.socket(fileno=report), local.job.request)
        return local.launch


def new_pipe(pipe_bytes: int, reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """A pipe for output that holds so many bytes, or what the user may still have.

    Each of its ends is closed with the stack for it.
    pipe(7), /proc/sys/fs/pipe-user-pages-soft: only root may go past it.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    reading.callback(os.close, read)
    writing.callback(os.close, write)
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, pipe_bytes)
    return read, write
