"""Asking the keeper for a job's process."""

import contextlib
import errno
import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

from jobworker.supervisor.host.inside import Entrance, open_entrance
from jobworker.supervisor.job import Input, Request
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.local.inbox import Inbox
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.launch import Launch
from jobworker.supervisor.local.local_job import LocalJob
from jobworker.supervisor.local.placement import Placement
from jobworker.supervisor.local.programs import program_for
from jobworker.supervisor.local.streams import is_stored
from jobworker.supervisor.local.terminal import new_terminal

# In a job's directory, beside its segments.
STORED_INPUT = "input"


class Orders(Protocol):
    """Makes a job's pipes and its launch, and has its process made."""

    def order(self, local: LocalJob) -> None:
        """Do so. Raises OSError, and has made nothing then.

        BlockingIOError while the sandbox that it is to enter is being made.
        """

    def resumed(self, local: LocalJob, report: int) -> Launch:
        """The launch of a job whose process there is, ordered by another supervisor."""


class Files(NamedTuple):
    """The descriptors of a job's files: what is read here, what it gets, and what else is kept.

    `more` are those of its input and its terminal, as streams.py has them; without
    them, the job's stdin is the keeper's affair.
    """

    stdout: int
    stderr: int
    given_stdin: int
    given_stdout: int
    given_stderr: int
    more: tuple[int, ...] = ()


class Births:
    """Orders to a keeper as of births.py; a job's directory is in `output`."""

    def __init__(
        self,
        keeper: KeeperLink,
        placement: Placement,
        pipe_bytes: int,
        connect: "Connect",
        output: Path,
    ) -> None:
        self._keeper = keeper
        self._placement = placement
        self._pipe_bytes = pipe_bytes
        self._connect = connect
        self._output = output

    def order(self, local: LocalJob) -> None:
        """As in Orders."""
        with ExitStack() as ends, ExitStack() as undo:
            spec = self._placement.spec(local.job.request, self._entrance(local, ends))
            made = program_for(spec)
            ends.callback(packets.close_all, made.files)
            program = made.program.to_memfd()
            ends.callback(os.close, program)
            files = self._files(local.job.request, undo, ends)
            report, theirs = packets.pair()
            ends.callback(theirs.close)
            undo.callback(report.close)
            kept = (files.stdout, files.stderr, report.fileno())
            given = (files.given_stdout, files.given_stderr, theirs.fileno())
            if len(made.files) > 1:
                local.told = os.dup(made.files[-1])
            packet: packets.Packet = ("launch", local.job.id, local.where.cgroup)
            more: tuple[int, ...] = ()
            if files.more:
                packet = (*packet, len(files.more))
                more = (*files.more, files.given_stdin)
            self._keeper.tell(packet, (program, *kept, *given, *more, *made.files))
            undo.pop_all()
        self._connect(local, files.stdout, files.stderr, files.more)
        local.launch = Launch(report, local.job.request)

    def _entrance(self, local: LocalJob, ends: ExitStack) -> Entrance | None:
        """The way to the other job's sandbox, if there is one; it is closed with the stack."""
        if not local.job.request.inside:
            return None
        if local.other is None or local.other.main is None:
            # Never outside for want of it.
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if not local.other.private:
            return None
        entrance = open_entrance(local.other.main.pid)
        ends.callback(os.close, entrance.pidfd)
        return entrance

    def _files(self, request: Request, reading: ExitStack, writing: ExitStack) -> Files:
        """What is ours is closed with the first of the stacks, what is the job's with the other."""
        if request.terminal.rows:
            return self._terminal(request, reading, writing)
        stdout, stdout_write = new_pipe(self._pipe_bytes, reading, writing)
        stderr, stderr_write = new_pipe(self._pipe_bytes, reading, writing)
        stdin = -1
        more: tuple[int, ...] = ()
        if request.input is not Input.NONE:
            stdin, stdin_write = new_pipe(self._pipe_bytes, writing, reading)
            stored = self._output / request.id / STORED_INPUT if is_stored(request) else None
            more = (stdin_write, _new_inbox(reading, stored))
        return Files(stdout, stderr, stdin, stdout_write, stderr_write, more)

    def _terminal(self, request: Request, reading: ExitStack, writing: ExitStack) -> Files:
        asked = request.terminal
        ends = new_terminal(asked.rows, asked.columns, request.account)
        reading.callback(os.close, ends.master)
        writing.callback(os.close, ends.slave)
        # Its last words need the other half of the room.
        shown, pipe = new_pipe(self._pipe_bytes // 2, reading, reading)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        reading.callback(os.close, nothing)
        more = (ends.master, _new_inbox(reading), pipe)
        return Files(shown, nothing, ends.slave, ends.slave, ends.slave, more)

    def resumed(self, local: LocalJob, report: int) -> Launch:
        """As in Orders."""
        local.launch = Launch(socket.socket(fileno=report), local.job.request)
        return local.launch


class Connect(Protocol):
    """Has a job's output recorded and its input handed on, by these descriptors, from here on."""

    def __call__(self, local: LocalJob, stdout: int, stderr: int, more: tuple[int, ...]) -> None:
        """Take them over."""


def _new_inbox(ours: ExitStack, stored_at: Path | None = None) -> int:
    inbox = Inbox.new(stored_at)
    ours.callback(inbox.close)
    return inbox.descriptor


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
