"""How far back the audit log asks for the ends of jobs, whatever the wall clock was set to."""

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from jobworker.grpc_api.guard.job_trail import JobTrail

MINUTE_NS = 60 * 10**9
YEAR_NS = 365 * 24 * 60 * MINUTE_NS


def trail(*ago: timedelta) -> JobTrail:
    """One whose log has records from so long ago."""
    now = datetime.now(UTC)
    lines: list[Any] = [
        SimpleNamespace(record=SimpleNamespace(time=now - one, event=None)) for one in ago
    ]
    return JobTrail(Mock(), lines)


@pytest.mark.parametrize(
    ("ago", "least", "most"),
    [
        ((), MINUTE_NS, MINUTE_NS),
        ((timedelta(hours=2), timedelta(hours=1)), 61 * MINUTE_NS, 62 * MINUTE_NS),
        # The clock has been set back since: nothing tells how long it was.
        ((timedelta(hours=-1),), 100 * YEAR_NS, 200 * YEAR_NS),
    ],
    ids=["new", "an hour ago", "to come"],
)
def test_it_asks_for_all_that_may_be_missing(
    ago: tuple[timedelta, ...], least: int, most: int
) -> None:
    """After the clock was set back it asked for what ended in the future, and missed the rest."""
    assert least <= trail(*ago).within_ns() <= most


def test_what_it_records_itself_it_dates_by_a_clock_that_is_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = trail(timedelta(hours=1))
    jobs._waiting["one"] = Mock(state=None, attempts=())
    jobs._record()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert MINUTE_NS <= jobs.within_ns() < 30 * MINUTE_NS
