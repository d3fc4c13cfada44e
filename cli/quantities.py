"""Times and sizes as people type them."""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import click

_SECONDS: Mapping[str, float] = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: Mapping[str, int] = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# What fits the contract's numbers, and the journal's; no host has as much.
MOST_BYTES = 2**63 - 1
MOST_COUNT = 2**32 - 1
MOST_SECONDS = 100 * 365 * 86400.0
# int() takes no more digits than some, and a double no more than others.
_MOST_DIGITS = 100


def seconds(text: str) -> float | None:
    """Return the seconds of a length of time such as 10, 1.5, 500ms, 2m or 7d; None if none.

    None has more than 100 years.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text)
    length = float(match[1]) * _SECONDS[match[2]] if match else None
    return length if length is not None and length <= MOST_SECONDS else None


class Seconds(click.ParamType[float]):
    """A length of time, in seconds: see `seconds`."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds; what is not a length of time is a usage error."""
        length = seconds(str(value))
        if length is None:
            self.fail(
                f"{value!r} is not a length of time up to 100 years, such as 10, 500ms or 2m",
                param,
                ctx,
            )
        return length


class Moment(click.ParamType[datetime]):
    """A point in time: so long ago (10m), or ISO 8601, in local time unless it names a zone."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time, in UTC; what is none is a usage error."""
        text = str(value)
        try:
            ago = seconds(text)
            if ago is not None:
                return datetime.now(UTC) - timedelta(seconds=ago)
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither so long ago, such as 10m, "
                "nor a time, such as 2026-01-31T12:00:00Z",
                param,
                ctx,
            )


class Ahead(click.ParamType[datetime]):
    """A point in time to come: a time of day (18:00), the next there is, or as Moment has it."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time, in UTC; what is none, or is past, is a usage error."""
        text = str(value)
        try:
            then = _time_of_day(text) or datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a time of day, such as 18:00, "
                "nor a date and time, such as 2026-01-31T12:00:00Z",
                param,
                ctx,
            )
        if then < datetime.now(UTC):
            self.fail(f"{text} is past", param, ctx)
        return then


def _time_of_day(text: str) -> datetime | None:
    """Return when that is for the next time, in UTC; None for what is no time of day."""
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", text)
    if match is None:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups())
    # By the clock on the wall, however long the day is.
    now = datetime.now().astimezone().replace(tzinfo=None)
    then = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    return (then if then > now else then + timedelta(days=1)).astimezone(UTC)


class Bytes(click.ParamType[int]):
    """A size: 4096, 64K, 10M, 1G or 1T, the units powers of 1024. Its value is in bytes."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes; what is not a size is a usage error."""
        text = str(value)
        match = re.fullmatch(r"([0-9]+)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size, such as 4096, 64K or 10M", param, ctx)
        count = int(match[1][:_MOST_DIGITS]) * _BYTES[match[2].upper()]
        if count > MOST_BYTES:
            self.fail(f"{text[:_MOST_DIGITS]} is more than a size can be: {MOST_BYTES}", param, ctx)
        return count


class Number(click.FloatRange):
    """A number above 0 that is one: neither infinite nor NaN, which a range lets through."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; what is none is a usage error."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def size_text(count: float) -> str:
    """Return a number of bytes in the largest fitting unit: 512 B, 1.5 KiB, 20.0 MiB."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def moment_text(time: datetime) -> str:
    """Return a time for people: in local time, with its zone."""
    # The year 9999 ends before it does so in every zone.
    with suppress(OverflowError):
        time = time.astimezone()
    return f"{time:%Y-%m-%d %H:%M:%S %Z}"


def span_text(span: timedelta) -> str:
    """Return a length of time in its two largest units: 250ms, 42s, 5m10s, 3h2m, 8d4h."""
    seconds = max(span.total_seconds(), 0)
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    for large, unit, small, rest in (
        (days, "d", hours, "h"),
        (hours, "h", minutes, "m"),
        (minutes, "m", whole % 60, "s"),
    ):
        if large:
            return f"{large}{unit}{small}{rest}" if small else f"{large}{unit}"
    return f"{whole}s"
