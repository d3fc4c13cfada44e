"""From the pipes of jobs to their recorders: in fair turns, within limits, on full disks."""

import asyncio
import contextlib
import errno
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

from jobworker.supervisor.host.disk_space import NO_ROOM, FreeSpace
from jobworker.supervisor.job import OutputLimit, Overflow
from jobworker.supervisor.local.local_job import LocalJob
from jobworker.supervisor.output.limbo import Limbo
from jobworker.supervisor.output.pump import SHARE_BYTES, Pump
from jobworker.supervisor.output.recorder import TIME_RESOLUTION_NS

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
        space: FreeSpace,
        limbo: Limbo,
        *,
        grew: Callable[[LocalJob], None],
        complete: Callable[[LocalJob], None],
        overflowed: Callable[[LocalJob], None],
    ) -> None:
        self._loop = loop
        self._pump = pump
        self._space = space
        self._grew = grew
        self._complete = complete
        self._overflowed = overflowed
        self._limbo = limbo
        self._allowances: dict[str, Allowance] = {}
        # By job whose main process has ended: pipe -> bytes that were in it then
        # and have not moved.
        self._undrained: dict[str, dict[int, int]] = {}

    def listen(self, local: LocalJob) -> None:
        """Record the job's output from here on."""
        limit = local.job.request.output_limit
        if limit.rate and local.output.pipes:
            self._allowances[local.job.id] = Allowance.full(limit.rate, self._loop.time())
        for pipe in local.output.pipes:
            self._pump.add(pipe, partial(self._move, local))
        if local.job.state.without_main:
            self.main_ended(local)

    def main_ended(self, local: LocalJob) -> None:
        """Note what is in the pipes: all that the main process wrote and is not on record.

        Most often nobody else writes to them, and little is left: then that is
        moved, and the output complete, at once.
        """
        self._undrained[local.job.id] = {
            pipe: _UNTIL_ITS_END if _at_end(pipe) else used
            for pipe in local.output.pipes
            if (used := _used(pipe)) or _at_end(pipe)
        }
        self._look_if_drained(local)
        for pipe in [pipe for pipe in local.output.pipes if _at_end(pipe)]:
            if self._move(local, pipe):
                self._move(local, pipe)

    def _drained(self, local: LocalJob, pipe: int, moved: int) -> None:
        """Count bytes that have moved off the pipe of a job whose main process has ended."""
        undrained = self._undrained.get(local.job.id)
        if undrained is None or pipe not in undrained:
            return
        undrained[pipe] -= moved
        if undrained[pipe] <= 0:
            del undrained[pipe]
        self._look_if_drained(local)

    def _look_if_drained(self, local: LocalJob) -> None:
        if not self._undrained[local.job.id]:
            del self._undrained[local.job.id]
            local.job.output_drained = True
            self._grew(local)

    def _move(self, local: LocalJob, pipe: int) -> bool:
        """Move some output; whether there may be more."""
        share = self._share(local, pipe)
        if not share:
            return False
        limit = local.job.request.output_limit
        try:
            moved = self._record(local, pipe, limit, share)
        except BlockingIOError:
            return False
        except OSError as error:
            return self._failed(local, pipe, error)
        if moved == 0:
            self._end(local, pipe)
            return False
        self._moved(local, pipe, moved)
        return True

    def _share(self, local: LocalJob, pipe: int) -> int:
        """How many bytes the pipe may move now; if none, there will be another go."""
        allowance = self._allowances.get(local.job.id)
        if allowance is None:
            return SHARE_BYTES
        if local.job.state.without_main:
            allowance.end(sum(map(_used, local.output.pipes)))
        share = min(SHARE_BYTES, allowance.take_up(self._loop.time()))
        if share <= 0:
            self._loop.call_later(BURST_SECONDS / 2, self._pump.again, pipe)
        return share

    def _record(self, local: LocalJob, pipe: int, limit: OutputLimit, share: int) -> int:
        recorder = local.output.recorder
        if limit.bytes and limit.overflow is not Overflow.ROTATE:
            room = limit.bytes - recorder.end
            if room <= 0:
                return self._lose(local, pipe, limit, share)
            share = min(share, room)
        share = min(share, self._space.left())
        if not share:
            # What is left is for the record, and for what makes room.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before = time_ns()
        moved = recorder.record(pipe, local.output.pipes[pipe], before, share)
        self._space.take(moved)
        after = time_ns()
        # Others may have run meanwhile, and the job may have written only then.
        if after - before > TIME_RESOLUTION_NS:
            recorder.redate(moved, local.output.pipes[pipe], after)
        return moved

    def _lose(self, local: LocalJob, pipe: int, limit: OutputLimit, share: int) -> int:
        lost = local.output.recorder.lose(pipe, self._limbo, time_ns(), share)
        if lost and limit.overflow is Overflow.STOP_JOB:
            self._overflowed(local)
        return lost

    def _failed(self, local: LocalJob, pipe: int, error: OSError) -> bool:
        """The output could not be written."""
        self._loop.call_later(RETRY_SECONDS, self._pump.again, pipe)
        if not local.output.disk_full:
            local.output.disk_full = True
            log.warning("job %s: output cannot be recorded: %s", local.job.id, error.strerror)
        # Of a job that has ended it would wait for ever, and could not be removed to make room.
        pressing = _fullness(pipe) >= PRESSING or _at_end(pipe) or local.job.state.without_main
        if error.errno in NO_ROOM and pressing:
            with contextlib.suppress(OSError):
                lost = local.output.recorder.lose(pipe, self._limbo, time_ns(), SHARE_BYTES)
                if lost:
                    self._moved(local, pipe, lost)
                else:
                    self._end(local, pipe)
        elif _at_end(pipe):
            # Such as a directory that is gone: nothing could be kept later, either.
            local.job.detail = f"output is lost: it could not be recorded ({error.strerror})"
            self._end(local, pipe)
        return False

    def _moved(self, local: LocalJob, pipe: int, moved: int) -> None:
        allowance = self._allowances.get(local.job.id)
        if allowance is not None:
            allowance.tokens -= moved
        local.job.output_begin = local.output.recorder.begin
        local.job.output_end = local.output.recorder.end
        self._drained(local, pipe, moved)
        self._grew(local)

    def _end(self, local: LocalJob, pipe: int) -> None:
        self._pump.remove(pipe)
        local.output.end(pipe)
        self._drained(local, pipe, _UNTIL_ITS_END)
        if not local.output.pipes:
            self._allowances.pop(local.job.id, None)
            self._complete(local)


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
