"""What a job uses over time: the points that are kept, and the events that tell of them."""

from hypothesis import given
from hypothesis import strategies as st

from jobworker.console.samples import MOST_POINTS, Point, Series
from tests.support.server import Server
from tests.support.web.browser import Browser


def point(time: float) -> Point:
    return Point(time, None, None, None, None, None)


@given(st.lists(st.floats(0.5, 30.0), max_size=3000))
def test_a_long_series_keeps_its_whole_length_in_few_points(gaps: list[float]) -> None:
    series = Series()
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        times.append(now)
        series.add(point(now))
    kept = [one.time for one in series.points]
    assert len(kept) <= MOST_POINTS
    assert kept == sorted(set(kept) & set(times))
    assert kept[:1] == times[:1]
    if times:
        # The end is at most as far away as two points are from each other.
        widest = max(30.0, 4 * (times[-1] - times[0]) / MOST_POINTS)
        assert times[-1] - kept[-1] <= widest


def test_few_points_are_all_kept() -> None:
    series = Series()
    for second in range(MOST_POINTS):
        series.add(point(float(second)))
    assert [one.time for one in series.points] == [float(at) for at in range(MOST_POINTS)]


def test_a_page_is_told_what_its_job_uses(server: Server, alice: Browser) -> None:
    job = server.ask("alice", "start", "--", "sh", "-c", "while :; do :; done")
    assert 'data-points="[]"' in alice.get(f"/jobs/{job}").text
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        told = events.until("usage")
        assert told["first"]
        seen = told["points"]
        while not (seen[-1][1] or 0) > 0.1:
            told = events.until("usage")
            assert not told["first"]
            seen += told["points"]
    # Who looks later is told what was before, also once the job has ended.
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        assert events.until("usage")["points"][: len(seen)] == seen
    server.ask("alice", "stop", job)
    assert f'data-points="[[{seen[0][0]}' in alice.get(f"/jobs/{job}").text


def test_nobody_else_is_told(server: Server, alice: Browser, bob: Browser) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000")
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        events.until("usage")
    assert bob.get(f"/live/jobs/{job}").status == 404
    server.ask("alice", "stop", job)
