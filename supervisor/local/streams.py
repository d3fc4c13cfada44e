"""A job's stdin and its terminal: what is held for them, here and by the keeper."""

import asyncio
import os
import stat
from functools import partial

from jobworker.supervisor.host.disk_space import FreeSpace
from jobworker.supervisor.job import Input, Request
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.local.inbox import Inbox
from jobworker.supervisor.local.intake import Intake
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.local_job import LocalJob
from jobworker.supervisor.local.terminal import Screen
from jobworker.supervisor.output.pump import Pump

# Among what the keeper keeps of a job, in the order of births.py: where its input
# goes, that input's inbox, and for a terminal the pipe that what it shows goes into.
SINK, _INBOX, PIPE = 4, 5, 6
# How soon a full pipe for what a terminal shows is tried again.
_AGAIN_SECONDS = 0.005


def more_kept(request: Request) -> int:
    """How many of those there are."""
    if request.terminal.rows:
        return PIPE - SINK + 1
    return 0 if request.input is Input.NONE else PIPE - SINK


def is_stored(request: Request) -> bool:
    """Whether its input is kept on disk until it takes it."""
    return request.input is Input.STORED and not request.terminal.rows


class Streams:
    """Connects jobs to what they read, and their terminals to what is recorded."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, keeper: KeeperLink, pump: Pump, store: FreeSpace
    ) -> None:
        """The `store` is what stored input may take of the disk."""
        self._loop = loop
        self._store = store
        self._keeper = keeper
        self._pump = pump

    def open(self, local: LocalJob, stdout: int, stderr: int, more: tuple[int, ...]) -> None:
        """Take over a job's descriptors: read ends of its output, and `more_kept` others."""
        request = local.job.request
        if request.terminal.rows:
            os.close(stderr)
            local.output.open(stdout)
            master, inbox, pipe = more
            if _is_null(pipe):
                packets.close_all(more)
                return
            sink = os.dup(master)
            local.screen = Screen(master, pipe)
        else:
            local.output.open(stdout, stderr)
            if not more:
                return
            sink, inbox = more
        if _is_null(sink):
            packets.close_all((sink, inbox))
            return
        local.intake = Intake(
            self._loop,
            sink,
            Inbox(inbox),
            store=self._store if is_stored(request) else None,
            on_terminal=bool(request.terminal.rows),
            spent=partial(self._input_ended, local),
        )

    def listen(self, local: LocalJob) -> None:
        """Go on with the input that is there, and with what the terminal shows."""
        if local.screen is not None:
            self._pump.add(local.screen.master, partial(self._move, local))
        if local.job.state.without_main:
            self.main_ended(local)
        elif local.intake is not None:
            local.intake.resume()

    def _move(self, local: LocalJob, master: int) -> bool:
        if local.screen is None:
            return False
        try:
            return local.screen.move()
        except BlockingIOError:
            self._loop.call_later(_AGAIN_SECONDS, self._pump.again, master)
        except EOFError:
            self._end_screen(local, local.screen)
        return False

    def _end_screen(self, local: LocalJob, screen: Screen) -> None:
        self._pump.remove(screen.master)
        screen.close()
        local.screen = None
        self._keeper.shut(local.job.id, PIPE)

    def _input_ended(self, local: LocalJob) -> None:
        if not local.job.request.terminal.rows:
            self._keeper.shut(local.job.id, SINK)

    def main_ended(self, local: LocalJob) -> None:
        """Its input was for the main process; what that has shown goes on record."""
        if local.intake is not None:
            local.end_input(ended=True)
            self._input_ended(local)
        if local.screen is not None:
            try:
                local.screen.move_last_words()
            except EOFError:
                self._end_screen(local, local.screen)

    def forget(self, local: LocalJob) -> None:
        """Watch it no longer."""
        if local.screen is not None:
            self._pump.remove(local.screen.master)


def _is_null(descriptor: int) -> bool:
    """Whether it is /dev/null: the keeper puts that in the place of what was shut."""
    status = os.fstat(descriptor)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
