"""Waiting out a broken connection: how long between attempts, and when to give up."""

import random
import time
from collections.abc import Callable

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


class Outage:
    """The time since a connection was last known to work.

    Delays double from FIRST_DELAY_SECONDS to LONGEST_DELAY_SECONDS, each made up
    to a fifth shorter by chance, so that the clients of a server that comes back
    do not all call at once. It is given up after `patience` seconds.
    """

    def __init__(
        self,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None
        self._delay = FIRST_DELAY_SECONDS

    @property
    def lasting(self) -> bool:
        """Whether an attempt has failed since the last success."""
        return self._began is not None

    def over(self) -> None:
        """Note that the connection works."""
        self._began = None
        self._delay = FIRST_DELAY_SECONDS

    def wait(self) -> bool:
        """Wait before the next attempt; False, at once, when patience has run out."""
        now = self._clock()
        if self._began is None:
            self._began = now
        if now - self._began >= self._patience:
            return False
        self._sleep(self._delay * random.uniform(0.8, 1))  # noqa: S311 - spread, not secrecy
        self._delay = min(self._delay * 2, LONGEST_DELAY_SECONDS)
        return True
