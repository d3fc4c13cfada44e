"""Jobs that wait for a time to have come: that of their next attempt, or of their first."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import time
from typing import NamedTuple

from jobworker.supervisor.job import Entry
from jobworker.supervisor.waiting.by_name import ByName

# How often the wall clock is looked at: nobody tells that it was set.
LOOK_SECONDS = 10.0


class _Held(NamedTuple):
    entry: Entry
    # 0 for one that waits for a length of time.
    at_us: int
    timer: asyncio.TimerHandle


class Delays:
    """Calls `due` with each whose time has come, and knows it no more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[Entry], None]) -> None:
        self._loop = loop
        self._due = due
        self._held: dict[str, _Held] = {}
        self._named = ByName()

    def hold(self, entry: Entry, seconds: float) -> None:
        """Have a job wait for so long."""
        self._hold(entry, 0, self._loop.call_later(seconds, self._over, entry))

    def hold_until(self, entry: Entry, at_us: int) -> None:
        """Have a job wait until that time, by the wall clock."""
        left = min(LOOK_SECONDS, max(0.0, at_us / 1e6 - time()))
        self._hold(entry, at_us, self._loop.call_later(left, self._look, entry, at_us))

    def _look(self, entry: Entry, at_us: int) -> None:
        if time() * 1e6 < at_us:
            self.hold_until(entry, at_us)
        else:
            self._over(entry)

    def _hold(self, entry: Entry, at_us: int, timer: asyncio.TimerHandle) -> None:
        self._held[entry.id] = _Held(entry, at_us, timer)
        self._named.add(entry)

    def _over(self, entry: Entry) -> None:
        self.discard(entry.id)
        self._due(entry)

    def discard(self, job_id: str) -> None:
        """It waits no longer, if it did."""
        if (held := self._held.pop(job_id, None)) is not None:
            held.timer.cancel()
            self._named.discard(held.entry)

    def get(self, job_id: str) -> Entry | None:
        """The job, if it waits for a time."""
        held = self._held.get(job_id)
        return held.entry if held else None

    def named(self, owner: str, name: str) -> str:
        """The ID of the owner's job of this name; empty for none."""
        return self._named.of(owner, name)

    def explain(self, job_id: str, *, again: bool) -> str:
        """Until when a job waits, in words; empty for one that does not."""
        if (held := self._held.get(job_id)) is None:
            return ""
        started = "started again" if again else "started"
        if held.at_us:
            time_then = datetime.fromtimestamp(held.at_us / 1e6, UTC)
            return f"it is {started} at {time_then:%Y-%m-%d %H:%M:%S} UTC"
        left = max(0.0, held.timer.when() - self._loop.time())
        return f"it is {started} in {left:.0f} s"

    def __len__(self) -> int:
        return len(self._held)
