"""IDs for new jobs: UUIDv7 (RFC 9562), which ascend whatever the wall clock is set to.

Jobs are listed by their IDs, the newest first.
"""

from uuid import UUID

from uuid_utils import uuid7

_MILLISECOND_NS = 1_000_000
# Of the 128 bits, those behind the time in milliseconds.
_REST = 80


class JobIDs:
    """Makes IDs, each after those of before, and after what it was told of."""

    def __init__(self) -> None:
        self._last = ""

    def follow(self, job_id: str) -> None:
        """Make none from here on that is before this one."""
        self._last = max(self._last, job_id)

    def next(self) -> str:
        """A new one."""
        new = str(uuid7())
        if new <= self._last:
            # The clock is behind: in its place, a millisecond for each.
            milliseconds = (UUID(self._last).int >> _REST) + 1
            new = str(uuid7(nanoseconds=milliseconds * _MILLISECOND_NS))
        self._last = new
        return new
