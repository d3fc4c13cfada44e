"""Telling a flood of output from a trickle: a flood is worth a connection of its own."""

import time
from collections.abc import Callable

# So many bytes within so many seconds are a flood: also what a slow link lets
# through of one, as it is compressed on the faster way.
FLOOD_BYTES = 2 * 1024 * 1024
FLOOD_SECONDS = 4.0


class Flood:
    """Watches how fast output comes; a flood, once it flows, is one to the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._bytes = 0
        self._dammed = False
        self.flows = False
        # Bytes a second, once it flows.
        self.rate = 0.0

    def begins_with(self, count: int) -> bool:
        """Count bytes that came; whether with them a flood has begun."""
        if self.flows or self._dammed:
            return False
        now = self._clock()
        if now - self._since > FLOOD_SECONDS:
            self._since, self._bytes = now, 0
        self._bytes += count
        self.flows = self._bytes >= FLOOD_BYTES
        if self.flows and now > self._since:
            self.rate = self._bytes / (now - self._since)
        return self.flows

    def dam(self) -> None:
        """There is no faster way for it: take it for a trickle from here on."""
        self.flows, self._dammed = False, True
