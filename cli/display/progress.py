"""A line on the terminal about a transfer whose bytes go elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from jobworker.cli.quantities import size_text

# A short transfer needs no line, and a long one not a new one for each message.
FIRST_SECONDS = 1.0
EVERY_SECONDS = 0.2
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Says on `terminal` how much has come and how fast; silent when it is None."""

    def __init__(
        self, terminal: TextIO | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = terminal
        self._clock = clock
        self._began = clock()
        self._next = self._began + FIRST_SECONDS
        self._bytes = 0
        self._shown = False

    def add(self, count: int) -> None:
        """Count bytes that have come."""
        self._bytes += count
        now = self._clock()
        if self._terminal is None or now < self._next:
            return
        self._next = now + EVERY_SECONDS
        rate = self._bytes / (now - self._began)
        self._shown = True
        self._terminal.write(f"{_CLEAR_LINE}{size_text(self._bytes)}, {size_text(rate)}/s")
        self._terminal.flush()

    def clear(self) -> None:
        """Take the line away, if it is there: something else is to be written."""
        if self._terminal is not None and self._shown:
            self._shown = False
            self._terminal.write(_CLEAR_LINE)
            self._terminal.flush()


def terminal_for_progress() -> TextIO | None:
    """Return stderr if it is a terminal that the output does not go to, else None."""
    return sys.stderr if sys.stderr.isatty() and not sys.stdout.isatty() else None
