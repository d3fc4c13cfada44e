"""Times and sizes as people type them."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from jobworker.cli.quantities import Bytes, Moment, Number, Seconds, size_text, span_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("10", 10), ("1.5", 1.5), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("7d", 604800)],
)
def test_a_length_of_time(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-1", "1 s", "m", "1w", "1e3", "nan", "inf", "٣", "36501d", "9" * 400]
)
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a length of time"):
        Seconds().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65536),
        ("64k", 65536),
        ("10M", 10 * 2**20),
        ("1G", 2**30),
        ("2TiB", 2**41),
        ("3KB", 3072),
    ],
)
def test_a_size(text: str, count: int) -> None:
    assert Bytes().convert(text, None, None) == count


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "M", "1P", "1 K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize("text", ["8388608T", str(2**63), "9" * 5000, "9" * 5000 + "T"])
def test_more_than_any_size(text: str) -> None:
    """What does not fit the contract's numbers ended in a traceback."""
    with pytest.raises(click.BadParameter, match="is more than a size can be"):
        Bytes().convert(text, None, None)
    assert Bytes().convert(str(2**63 - 1), None, None) == 2**63 - 1


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "x", ""])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Number().convert(text, None, None)


def test_a_moment_ago() -> None:
    before = datetime.now(UTC)
    moment = Moment().convert("10m", None, None)
    assert before <= moment + timedelta(minutes=10) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31 12:00:00+00:00"]
)
def test_a_moment_in_iso_8601(text: str) -> None:
    assert Moment().convert(text, None, None) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_moment_without_a_zone_is_local() -> None:
    local = datetime(2026, 1, 31, 12).astimezone()
    assert Moment().convert("2026-01-31T12:00:00", None, None) == local


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "99999999999999d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is neither"):
        Moment().convert(text, None, None)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (20 * 2**20, "20.0 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_a_size_as_text(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0s"),
        (0.25, "0.2s"),
        (9.96, "10.0s"),
        (42.9, "42s"),
        (60, "1m"),
        (310, "5m10s"),
        (3 * 3600 + 125, "3h2m"),
        (8 * 86400 + 4 * 3600 + 59, "8d4h"),
        (86400 + 59, "1d"),
    ],
)
def test_a_length_of_time_as_text(seconds: float, text: str) -> None:
    assert span_text(timedelta(seconds=seconds)) == text
