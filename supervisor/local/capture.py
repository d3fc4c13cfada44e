"""From the pipes of jobs to their recorders: in fair turns, within limits, on full disks."""

import asyncio
import contextlib
import fcntl
import logging
import os
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

    Calls `grew` when there is more output of a job, `complete` when there will
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

    def listen(self, live: LiveJob) -> None:
        """Record the job's output from here on."""
        limit = live.job.request.output_limit
        if limit.rate and live.pipes:
            self._allowances[live.job.id] = Allowance.full(limit.rate, self._loop.time())
        for pipe in live.pipes:
            self._pump.add(pipe, partial(self._move, live))

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
        self._moved(live, moved)
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
                self._moved(live, live.recorder.lose(pipe, self._null, time_ns(), SHARE_BYTES))
        return False

    def _moved(self, live: LiveJob, moved: int) -> None:
        allowance = self._allowances.get(live.job.id)
        if allowance is not None:
            allowance.tokens -= moved
        live.job.output_begin = live.recorder.begin
        live.job.output_end = live.recorder.end
        self._grew(live)

    def _end(self, live: LiveJob, pipe: int) -> None:
        self._pump.remove(pipe)
        os.close(pipe)
        del live.pipes[pipe]
        if not live.pipes:
            self._allowances.pop(live.job.id, None)
            self._complete(live)


def _used(pipe: int) -> int:
    """How many bytes are in a pipe (FIONREAD)."""
    (used,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))
    return int(used)


def _fullness(pipe: int) -> float:
    """What part of a pipe's capacity is used (F_GETPIPE_SZ)."""
    return _used(pipe) / fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
