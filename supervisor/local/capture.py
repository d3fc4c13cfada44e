"""From the pipes of jobs to their recorders: in fair turns, within limits, on full disks."""

import asyncio
import contextlib
import fcntl
import logging
import os
import select
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import time_ns

from jobworker.supervisor.job import OutputLimit, Overflow, State
from jobworker.supervisor.local.live_job import LiveJob
from jobworker.supervisor.output.pump import SHARE_BYTES, Pump
from jobworker.supervisor.output.recorder import NO_ROOM, TIME_RESOLUTION_NS

log = logging.getLogger(__name__)

# How soon to try again to write to a disk that had no room.
RETRY_SECONDS = 0.1
# A pipe this full, with no room on the disk, would soon stop its job: rather
# lose what is in it.
PRESSING = 0.5
# A rate is kept over this time; a job may write so much at once.
BURST_SECONDS = 0.25
# Stands for what is left in a pipe that nobody writes to any more.
_UNTIL_ITS_END = 2**63


@dataclass
class Allowance:
    """What a rate limit still lets through: a token bucket; `now` is in seconds."""

    rate: int
    tokens: float
    since: float
    ended: bool = False

    @classmethod
    def full(cls, rate: int, now: float) -> "Allowance":
        """Of a job that has written nothing lately."""
        return cls(rate, rate * BURST_SECONDS, now)

    def take_up(self, now: float) -> int:
        """How many bytes may pass now."""
        most = max(self.tokens, self.rate * BURST_SECONDS)
        self.tokens = min(most, self.tokens + (now - self.since) * self.rate)
        self.since = now
        return int(self.tokens)

    def end(self, left: int) -> None:
        """Let what the job has left in its pipes through at once: it writes no more."""
        if not self.ended:
            self.ended = True
            self.tokens += left


class Capture:
    """Records what comes out of the jobs' pipes.

    Calls `grew` when there is more output of a job, or all that its main process
    wrote, `complete` when there will
    be no more, and `overflowed` once when it has reached a limit at which the
    job is to be stopped.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pump: Pump,
        *,
        grew: Callable[[LiveJob], None],
        complete: Callable[[LiveJob], None],
        overflowed: Callable[[LiveJob], None],
    ) -> None:
        self._loop = loop
        self._pump = pump
        self._grew = grew
        self._complete = complete
        self._overflowed = overflowed
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._allowances: dict[str, Allowance] = {}
        # By job whose main process has ended: pipe -> bytes that were in it then
        # and have not moved.
        self._undrained: dict[str, dict[int, int]] = {}

    def listen(self, live: LiveJob) -> None:
        """Record the job's output from here on."""
        limit = live.job.request.output_limit
        if limit.rate and live.pipes:
            self._allowances[live.job.id] = Allowance.full(limit.rate, self._loop.time())
        for pipe in live.pipes:
            self._pump.add(pipe, partial(self._move, live))
        if live.job.state is State.ENDED:
            self.main_ended(live)

    def main_ended(self, live: LiveJob) -> None:
        """Note what is in the pipes: all that the main process wrote and is not on record."""
        self._undrained[live.job.id] = {
            pipe: _UNTIL_ITS_END if _at_end(pipe) else used
            for pipe in live.pipes
            if (used := _used(pipe)) or _at_end(pipe)
        }
        self._look_if_drained(live)

    def _drained(self, live: LiveJob, pipe: int, moved: int) -> None:
        """Count bytes that have moved off the pipe of a job whose main process has ended."""
        undrained = self._undrained.get(live.job.id)
        if undrained is None or pipe not in undrained:
            return
        undrained[pipe] -= moved
        if undrained[pipe] <= 0:
            del undrained[pipe]
        self._look_if_drained(live)

    def _look_if_drained(self, live: LiveJob) -> None:
        if not self._undrained[live.job.id]:
            del self._undrained[live.job.id]
            live.job.output_drained = True
            self._grew(live)

    def _move(self, live: LiveJob, pipe: int) -> bool:
        """Move some output; whether there may be more."""
        share = self._share(live, pipe)
        if not share:
            return False
        limit = live.job.request.output_limit
        try:
            moved = self._record(live, pipe, limit, share)
        except BlockingIOError:
            return False
        except OSError as error:
            return self._failed(live, pipe, error)
        if moved == 0:
            self._end(live, pipe)
            return False
        self._moved(live, pipe, moved)
        return True

    def _share(self, live: LiveJob, pipe: int) -> int:
        """How many bytes the pipe may move now; if none, there will be another go."""
        allowance = self._allowances.get(live.job.id)
        if allowance is None:
            return SHARE_BYTES
        if live.job.state is State.ENDED:
            allowance.end(sum(map(_used, live.pipes)))
        share = min(SHARE_BYTES, allowance.take_up(self._loop.time()))
        if share <= 0:
            self._loop.call_later(BURST_SECONDS / 2, self._pump.again, pipe)
        return share

    def _record(self, live: LiveJob, pipe: int, limit: OutputLimit, share: int) -> int:
        recorder = live.recorder
        if limit.bytes and limit.overflow is not Overflow.ROTATE:
            room = limit.bytes - recorder.end
            if room <= 0:
                return self._lose(live, pipe, limit, share)
            share = min(share, room)
        before = time_ns()
        moved = recorder.record(pipe, live.pipes[pipe], before, share)
        after = time_ns()
        # Others may have run meanwhile, and the job may have written only then.
        if after - before > TIME_RESOLUTION_NS:
            recorder.redate(moved, live.pipes[pipe], after)
        return moved

    def _lose(self, live: LiveJob, pipe: int, limit: OutputLimit, share: int) -> int:
        lost = live.recorder.lose(pipe, self._null, time_ns(), share)
        if lost and limit.overflow is Overflow.STOP_JOB:
            self._overflowed(live)
        return lost

    def _failed(self, live: LiveJob, pipe: int, error: OSError) -> bool:
        """The output could not be written."""
        self._loop.call_later(RETRY_SECONDS, self._pump.again, pipe)
        if not live.disk_full:
            live.disk_full = True
            log.warning("job %s: output cannot be recorded: %s", live.job.id, error.strerror)
        if error.errno in NO_ROOM and live.job.output_end and _fullness(pipe) >= PRESSING:
            with contextlib.suppress(OSError):
                lost = live.recorder.lose(pipe, self._null, time_ns(), SHARE_BYTES)
                self._moved(live, pipe, lost)
        return False

    def _moved(self, live: LiveJob, pipe: int, moved: int) -> None:
        allowance = self._allowances.get(live.job.id)
        if allowance is not None:
            allowance.tokens -= moved
        live.job.output_begin = live.recorder.begin
        live.job.output_end = live.recorder.end
        self._drained(live, pipe, moved)
        self._grew(live)

    def _end(self, live: LiveJob, pipe: int) -> None:
        self._pump.remove(pipe)
        os.close(pipe)
        del live.pipes[pipe]
        self._drained(live, pipe, _UNTIL_ITS_END)
        if not live.pipes:
            self._allowances.pop(live.job.id, None)
            self._complete(live)


def _used(pipe: int) -> int:
    """How many bytes are in a pipe (FIONREAD)."""
    (used,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))
    return int(used)


def _at_end(pipe: int) -> bool:
    """Whether nobody can write to a pipe any more (POLLHUP), though it may hold something."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _fullness(pipe: int) -> float:
    """What part of a pipe's capacity is used (F_GETPIPE_SZ)."""
    return _used(pipe) / fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
