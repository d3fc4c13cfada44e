"""What is to run again and again: when that is due, and what came of it last."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from jobworker.supervisor.job import Request

_SECOND_US = 1_000_000
# More than any that makes sense has.
_MOST_CHARACTERS = 256


class Overlap(IntEnum):
    """What happens to a run while the one before has not ended; the contract's numbers."""

    SKIP = 1
    QUEUE = 2
    REPLACE = 3


class Change(IntEnum):
    """What can be done to a schedule; the contract's numbers."""

    PAUSE = 1
    RESUME = 2
    RUN = 3
    RENEW = 4
    REMOVE = 5


@dataclass(frozen=True)
class Schedule:
    """One schedule as it is now. Times are microseconds since 1970, 0 for none.

    `request` is what each run asks for, but for its ID. `next_us` is when the next
    is due, as of `looked_us`; at `last_us` the last was, which is `last_job`, or for
    which nothing was run, as `skipped` says.
    """

    name: str
    cron: str
    time_zone: str
    overlap: Overlap
    catch_up: bool
    request: Request
    paused: bool = False
    next_us: int = 0
    looked_us: int = 0
    last_us: int = 0
    last_job: str = ""
    skipped: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Its owner and its name: no two have the same."""
        return self.request.owner, self.name

    def due_after(self, time_us: int) -> int:
        """When it is due next after that."""
        return next(due_times(self.cron, self.time_zone, time_us))


def due_times(cron: str, time_zone: str, after_us: int) -> Iterator[int]:
    """The times of the five fields of crontab(5), by the wall clock of a time zone.

    A time that a clock put forward leaves out is right after; of those that come
    twice, one counts unless all hours are meant (as Debian's cron(8) has it).
    Raises ValueError in words for what is no such time.
    """
    if len(cron) > _MOST_CHARACTERS:
        raise ValueError(f"a time of {len(cron)} characters is longer than {_MOST_CHARACTERS}")
    try:
        zone = ZoneInfo(time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {time_zone[:64]!r}") from None
    try:
        times = CronSim(cron, datetime.fromtimestamp(after_us // _SECOND_US, zone))
        # Of some days, such as the 31st of February, there is none.
        first = next(times)
    except (CronSimError, StopIteration) as error:
        why = str(error) or "there is no such day"
        raise ValueError(
            f"{cron!r} is no time: {why.lower()}; write minute, hour, day of the month, "
            "month and day of the week, as crontab(5) has them"
        ) from None
    return (round(time.timestamp()) * _SECOND_US for time in _and_then(first, times))


def _and_then(first: datetime, rest: Iterator[datetime]) -> Iterator[datetime]:
    yield first
    yield from rest
