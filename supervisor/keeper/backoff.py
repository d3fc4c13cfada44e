"""When to start a process of the service again after it died, and when to give up."""

from typing import NamedTuple

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 5.0
# A process that lived so long is taken to be well: the count begins anew.
HEALTHY_SECONDS = 10.0
# So many deaths in a row of its own fault, and there is little hope.
HOPELESS_FAILURES = 8
# Deaths that are not count no further than this.
_MOST_OTHERWISE = 5


class Backoff(NamedTuple):
    """How often in a row a process died young. Start with `Backoff()`; times are seconds."""

    failures: int = 0

    def after_death(self, lived: float, *, own_fault: bool) -> "Backoff":
        """The count after a process has died that lived so long.

        `own_fault`: it never came up, and was not killed from outside.
        """
        if lived >= HEALTHY_SECONDS:
            return Backoff(1)
        if own_fault:
            return Backoff(self.failures + 1)
        return Backoff(max(self.failures, min(self.failures + 1, _MOST_OTHERWISE)))

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start: none after a first death, then doubling."""
        if self.failures <= 1:
            return 0.0
        return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (self.failures - 2))

    @property
    def hopeless(self) -> bool:
        """Whether a service with nothing to lose should end, for somebody to look at it."""
        return self.failures >= HOPELESS_FAILURES
