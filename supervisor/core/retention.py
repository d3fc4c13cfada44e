"""Forgetting jobs that ended long ago, with their output."""

import asyncio
import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from jobworker.supervisor.config import RetentionConfig, SupervisorConfig
from jobworker.supervisor.journal.journal import Ended, Journal
from jobworker.supervisor.live.turn import Turn

# How often the record is looked through.
SWEEP_SECONDS = 60.0


def superfluous(ended: Sequence[Ended], keep: RetentionConfig, now_ns: int) -> list[str]:
    """The IDs of the jobs not to be kept, of all that have ended, the first to end first."""
    jobs = len(ended)
    output = sum(job.output_bytes for job in ended)
    found: list[str] = []
    for job in ended:
        too_old = keep.seconds and job.ended_ns < now_ns - keep.seconds * 1e9
        too_many = keep.jobs and jobs > keep.jobs
        too_much = keep.output_bytes and output > keep.output_bytes
        if not (too_old or too_many or too_much):
            break
        found.append(job.id)
        jobs -= 1
        output -= job.output_bytes
    return found


class Retention:
    """Removes jobs: from the record first, then, one a turn, their files."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: SupervisorConfig,
        journal: Journal,
        turn: Turn,
        output_directory: Callable[[str], Path],
    ) -> None:
        self._loop = loop
        self._keep = config.retention
        self._journal = journal
        self._turn = turn
        self._output_directory = output_directory
        self._doomed: deque[Path] = deque()
        # Where output is between the removal of its job and its own.
        self._removed = Path(config.state_dir) / "removed"
        self._removed.mkdir(mode=0o700, exist_ok=True)
        self._resume()
        self._sweep()

    def remove(self, job_ids: Sequence[str]) -> None:
        """Forget these jobs, which have ended."""
        for job_id in job_ids:
            self._turn.delete(job_id)
            # Before it is off the record, or nobody would know after a crash that it is to go.
            with contextlib.suppress(FileNotFoundError):
                self._output_directory(job_id).rename(self._removed / job_id)
            self._turn.after_commit(partial(self._doom, self._removed / job_id))

    def free(self, job_ids: Collection[str]) -> bool:
        """Give up the output of jobs that are being removed, as the disk is full.

        Whether that has made room, for the record that they are gone.
        """
        freed = 0
        for job_id in job_ids:
            for path in (self._removed / job_id).glob("*"):
                with contextlib.suppress(OSError):
                    freed += _empty(path)
        return freed > 0

    def _resume(self) -> None:
        """Go on with removals that a crash cut short; undo those that were not on record yet."""
        for doomed in self._removed.iterdir():
            if self._journal.find(doomed.name) is None:
                self._doom(doomed)
            else:
                doomed.rename(self._output_directory(doomed.name))

    def _sweep(self) -> None:
        # First, as it is to be tried again also where it fails.
        self._loop.call_later(SWEEP_SECONDS, self._sweep)
        clock = self._journal.clock
        clock.note()
        self._journal.keep_room()
        self.remove(superfluous(self._journal.ended(), self._keep, clock.now_ns()))

    def _doom(self, directory: Path) -> None:
        self._doomed.append(directory)
        if len(self._doomed) == 1:
            self._loop.call_soon(self._remove_next)

    def _remove_next(self) -> None:
        shutil.rmtree(self._doomed[0], ignore_errors=True)
        self._doomed.popleft()
        if self._doomed:
            self._loop.call_soon(self._remove_next)


def _empty(path: Path) -> int:
    """Give up what a file holds; in how many blocks. Raises OSError.

    Of a job of a cluster the directory is its user's: no link there leads elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        blocks = os.fstat(descriptor).st_blocks
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
    return blocks
