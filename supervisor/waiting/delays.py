"""Jobs that are to be started again, and wait for the time to have come."""

import asyncio
from collections.abc import Callable

from jobworker.supervisor.job import Entry


class Delays:
    """Calls `due` with each whose time has come, and knows it no more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[Entry], None]) -> None:
        self._loop = loop
        self._due = due
        self._held: dict[str, tuple[Entry, asyncio.TimerHandle]] = {}

    def hold(self, entry: Entry, seconds: float) -> None:
        """Have a job wait for so long."""
        self._held[entry.id] = entry, self._loop.call_later(seconds, self._over, entry)

    def _over(self, entry: Entry) -> None:
        self.discard(entry.id)
        self._due(entry)

    def discard(self, job_id: str) -> None:
        """It waits no longer, if it did."""
        if (held := self._held.pop(job_id, None)) is not None:
            held[1].cancel()

    def get(self, job_id: str) -> Entry | None:
        """The job, if it waits for a time."""
        held = self._held.get(job_id)
        return held[0] if held else None

    def named(self, owner: str, name: str) -> str:
        """The ID of the owner's job of this name; empty for none."""
        entries = (entry for entry, _ in self._held.values())
        return next((one.id for one in entries if (one.owner, one.name) == (owner, name)), "")

    def explain(self, job_id: str) -> str:
        """For how long a job waits yet, in words; empty for one that does not."""
        if (held := self._held.get(job_id)) is None:
            return ""
        left = max(0.0, held[1].when() - self._loop.time())
        return f"it is started again in {left:.0f} s"

    def __len__(self) -> int:
        return len(self._held)
