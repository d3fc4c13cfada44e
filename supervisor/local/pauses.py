"""Having whole trees stand still, and go on."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from jobworker.supervisor.job import State
from jobworker.supervisor.local.local_job import LocalJob

log = logging.getLogger(__name__)

# How often a tree that is to stand still is looked at: soon at first, then less often.
FIRST_LOOK_SECONDS = 0.001
LONGEST_LOOK_SECONDS = 0.05
# A process in a system call that nothing interrupts (a dead file server) stands still when
# it returns from it; nobody is kept waiting for that.
PATIENCE_SECONDS = 5.0


@dataclass
class _Pause:
    local: LocalJob
    # When it is given out for done, on the loop's clock.
    deadline: float
    wait: float = FIRST_LOOK_SECONDS


class Pauses:
    """The pauses in progress. `still` is called once for each that has come to its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, still: Callable[[LocalJob], None]) -> None:
        self._loop = loop
        self._still = still
        self._pauses: dict[str, _Pause] = {}

    def begin(self, local: LocalJob) -> None:
        """Have the job's tree stand still, as long as the job is PAUSED."""
        if local.job.id in self._pauses:
            return
        # Also where nobody gets to look at it: see `release`.
        local.held = True
        pause = _Pause(local, self._loop.time() + PATIENCE_SECONDS)
        self._pauses[local.job.id] = pause
        self._loop.call_soon(self._look, pause)

    def _look(self, pause: _Pause) -> None:
        if self._pauses.get(pause.local.job.id) is not pause:
            return
        if self._advance(pause):
            del self._pauses[pause.local.job.id]
            self._still(pause.local)
            return
        self._loop.call_later(pause.wait, self._look, pause)
        pause.wait = min(LONGEST_LOOK_SECONDS, pause.wait * 1.5)

    def _advance(self, pause: _Pause) -> bool:
        """Whether it has come to its end."""
        job = pause.local.job
        if job.state is not State.PAUSED:
            return True
        try:
            if pause.local.tree.hold():
                return True
        except OSError as error:
            log.warning("job %s: cannot pause it yet: %s", job.id, error)
        if self._loop.time() < pause.deadline:
            return False
        log.warning("job %s: not all of it stands still yet", job.id)
        return True

    def end(self, local: LocalJob) -> None:
        """Let the job's tree go on, if it was to stand still. Raises OSError."""
        if local.held:
            local.release()
        if self._pauses.pop(local.job.id, None) is not None:
            self._loop.call_soon(self._still, local)
