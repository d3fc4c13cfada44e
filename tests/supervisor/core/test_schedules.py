"""Schedules: each time at most once, over ends, crashes and steps of the clock; the real core.

The engine, the front and the clocks are the test's; the journal is real.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uuid_utils import uuid7

from jobworker.supervisor.errors import Exhausted, NameTaken, NoSuchSchedule
from jobworker.supervisor.ipc.schedule_messages import AddSchedule, ChangeSchedule, Schedules
from jobworker.supervisor.job import NOBODY, Request, State
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.schedule import Change, Overlap, Schedule, due_times
from jobworker.supervisor.waiting import schedules
from tests.supervisor.core.world import World, clock, passes

BERLIN = ZoneInfo("Europe/Berlin")
STEP_SECONDS = 30.0
QUARTERS = "*/15 * * * *"
NOON = datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC)


class Scheduled(World):
    """A service with a wall clock that can be set."""

    def __init__(self, directory: Path, now: datetime = NOON) -> None:
        self.now = now
        # Due time and job of every run, as they came.
        self.runs: list[tuple[int, str]] = []
        super().__init__(directory)
        # Whose rights count is not asked here.
        self.quota = dict.fromkeys(self.quota, 10**6)

    def add(self, cron: str = QUARTERS, **fields: Any) -> None:
        request = Request(str(uuid7()), "ann", "red", ("true",))
        asked = Schedule("s", cron, "", Overlap.SKIP, catch_up=False, request=request)
        self.handle(AddSchedule(replace(asked, **fields), replace=False))

    def change(self, change: Change, name: str = "s") -> None:
        self.handle(ChangeSchedule("ann", name, change, NOBODY))

    @property
    def all(self) -> list[Schedule]:
        return self._supervisor.scheduler.of(Schedules(""))

    @property
    def one(self) -> Schedule:
        (found,) = self.all
        return found

    def note(self) -> None:
        for one in self.all:
            if one.last_job and not one.skipped and one.last_job not in dict(self.jobs_of_runs):
                self.runs.append((one.last_us, one.last_job))

    @property
    def jobs_of_runs(self) -> list[tuple[str, int]]:
        return [(job, due) for due, job in self.runs]

    def going_on(self) -> list[str]:
        jobs = (self.job(job) for _, job in self.runs)
        return [job.id for job in jobs if job is not None and job.state is not State.ENDED]

    async def wait(self, seconds: float) -> None:
        """Let both clocks go on."""
        while seconds > 0:
            step = min(STEP_SECONDS, seconds)
            self.now += timedelta(seconds=step)
            await passes(step)
            self.note()
            seconds -= step

    def end_runs(self) -> None:
        for job_id in sorted(self.engine.running):
            self.engine.end(job_id)


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> list[Scheduled]:
    """The wall clock is that of the world in the list."""
    worlds: list[Scheduled] = []
    monkeypatch.setattr(schedules, "time_ns", lambda: int(worlds[0].now.timestamp()) * 10**9)
    return worlds


def in_a_world(
    tmp_path: Path,
    wall: list[Scheduled],
    told: Callable[[Scheduled], Awaitable[None]],
    now: datetime = NOON,
) -> None:
    with clock() as runner:

        async def run() -> None:
            world = Scheduled.__new__(Scheduled)
            wall[:] = [world]
            world.now = now
            world.__init__(tmp_path, now)  # type: ignore[misc]
            await passes()
            await told(world)
            world.check()
            world.close()

        runner.run(run())


def microseconds(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000


def test_each_time_once_and_on_time(tmp_path: Path, wall: list[Scheduled]) -> None:
    async def told(world: Scheduled) -> None:
        world.add()
        await passes()
        for _ in range(8):
            await world.wait(900)
            world.end_runs()
            await passes()
        first = datetime(2026, 6, 1, 12, 15, tzinfo=UTC)
        wanted = [microseconds(first + timedelta(minutes=15 * n)) for n in range(8)]
        assert [due for due, _ in world.runs] == wanted
        assert len(set(world.starts)) == len(world.starts) == 8

    in_a_world(tmp_path, wall, told)


@pytest.mark.parametrize(
    ("overlap", "skipped", "begun"), [("SKIP", True, 1), ("QUEUE", False, 2), ("REPLACE", False, 2)]
)
def test_a_run_while_the_one_before_goes_on(
    tmp_path: Path, wall: list[Scheduled], overlap: str, skipped: bool, begun: int
) -> None:
    async def told(world: Scheduled) -> None:
        world.add(overlap=Overlap[overlap])
        await world.wait(900)
        (first,) = world.starts
        await world.wait(900)
        assert bool(world.one.skipped) == skipped
        assert ("has not ended" in world.one.skipped) == skipped
        assert len(world.starts) == begun
        assert (first in world.going_on()) == (overlap != "REPLACE")

    in_a_world(tmp_path, wall, told)


@pytest.mark.parametrize("catch_up", [False, True])
@pytest.mark.parametrize("days", [1, 400])
def test_what_a_step_of_the_clock_leaves_out(
    tmp_path: Path, wall: list[Scheduled], days: int, catch_up: bool
) -> None:
    """Made up for by one run at most, however long it was: there is no storm."""

    async def told(world: Scheduled) -> None:
        world.add(catch_up=catch_up)
        await passes()
        world.now += timedelta(days=days)
        await world.wait(STEP_SECONDS)
        assert len(world.runs) == catch_up
        assert ("it was missed by" in world.one.skipped) == (not catch_up)
        assert 0 < world.one.next_us - microseconds(world.now) <= 900 * 1_000_000
        world.end_runs()
        await world.wait(900)
        assert len(world.runs) == catch_up + 1

    in_a_world(tmp_path, wall, told)


@pytest.mark.parametrize(("back", "again"), [(timedelta(hours=1), 0), (timedelta(days=400), 4)])
def test_a_clock_that_is_set_back(
    tmp_path: Path, wall: list[Scheduled], back: timedelta, again: int
) -> None:
    """By an hour, nothing is run a second time; by much more it was wrong, and time goes on."""

    async def told(world: Scheduled) -> None:
        world.add()
        await world.wait(900)
        world.end_runs()
        world.now -= back
        for _ in range(4):
            await world.wait(890)
            world.end_runs()
            await passes()
        assert len(world.runs) - 1 == pytest.approx(again, abs=1 if again else 0)

    in_a_world(tmp_path, wall, told)


@pytest.mark.parametrize(
    ("month", "day", "wanted"),
    [(3, 29, "03:00+02:00"), (10, 25, "02:30+02:00")],
    ids=["spring", "autumn"],
)
def test_summer_time_begins_and_ends(
    tmp_path: Path, wall: list[Scheduled], month: int, day: int, wanted: str
) -> None:
    """02:30 does not exist on the one day, and comes twice on the other: it is run once."""

    async def told(world: Scheduled) -> None:
        world.add("30 2 * * *", time_zone="Europe/Berlin")
        for _ in range(12):
            await world.wait(1800)
            world.end_runs()
            await passes()
        (run,) = world.runs
        due = datetime.fromtimestamp(run[0] / 1e6, BERLIN)
        assert due.isoformat() == f"2026-{month:02}-{day:02}T{wanted[:5]}:00{wanted[5:]}"

    in_a_world(tmp_path, wall, told, datetime(2026, month, day, 0, 0, 1, tzinfo=BERLIN))


def test_what_is_done_to_a_schedule(tmp_path: Path, wall: list[Scheduled]) -> None:
    async def told(world: Scheduled) -> None:
        world.add()
        world.add()
        await passes()
        assert isinstance(world.front.refusals.pop(), NameTaken)
        world.change(Change.PAUSE)
        await world.wait(1800)
        assert (world.runs, world.one.next_us) == ([], 0)
        world.change(Change.RUN)
        await world.wait(STEP_SECONDS)
        assert len(world.runs) == 1
        world.end_runs()
        world.change(Change.RESUME)
        await world.wait(900)
        assert len(world.runs) == 2
        world.change(Change.REMOVE)
        await world.wait(900)
        assert (len(world.runs), world.all) == (2, [])
        world.change(Change.RUN)
        assert isinstance(world.front.refusals.pop(), NoSuchSchedule)
        world.end_runs()
        await passes()
        world.crash()
        assert world.all == []

    in_a_world(tmp_path, wall, told)


def test_nobody_has_more_than_there_is_room_for(
    tmp_path: Path, wall: list[Scheduled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "MOST_OF_AN_OWNER", 2)

    async def told(world: Scheduled) -> None:
        for number in range(3):
            world.add(name=f"s{number}")
        await passes()
        assert isinstance(world.front.refusals.pop(), Exhausted)
        assert [one.name for one in world.all] == ["s0", "s1"]
        monkeypatch.setattr(schedules, "MOST_BYTES", 5)
        world.change(Change.REMOVE, "s1")
        world.add(name="s2")
        await passes()
        assert isinstance(world.front.refusals.pop(), Exhausted)

    in_a_world(tmp_path, wall, told)


def test_what_cannot_be_put_on_record_is_refused_and_not_there(
    tmp_path: Path, wall: list[Scheduled], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def told(world: Scheduled) -> None:
        world.add()
        await passes()
        with monkeypatch.context() as patch:
            stored = schedules.StoredSchedules
            for name in ("put", "delete"):
                patch.setattr(stored, name, fails)
            world.add(name="other")
            await passes()
            assert isinstance(world.front.refusals.pop(), Exhausted)
            for change in (Change.PAUSE, Change.REMOVE):
                world.change(change)
                await passes()
                assert isinstance(world.front.refusals.pop(), Exhausted)
                assert not world.one.paused
        await passes(1.0)
        world.crash()
        assert (world.one.name, world.one.paused) == ("s", False)

    in_a_world(tmp_path, wall, told)


def test_an_older_journal_has_none_and_takes_some(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.sqlite").close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("DROP TABLE schedule")
    database.close()
    journal = Journal(tmp_path / "journal.sqlite")
    request = Request("", "ann", "red", ("\udcff",), {"A": "\udcfe"})
    schedule = Schedule("s", QUARTERS, "", Overlap.QUEUE, catch_up=True, request=request)
    journal.begin()
    journal.schedules.put(schedule)
    journal.commit()
    assert journal.schedules.all() == [schedule]
    journal.close()


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "60 * * * *", "0 0 31 2 *", "x", "@daily", "1" * 5000, "* * * * * * *"]
)
def test_what_is_no_time(cron: str) -> None:
    with pytest.raises(ValueError, match=r"is no time|longer than"):
        due_times(cron, "UTC", 0)


@pytest.mark.parametrize("zone", ["Nowhere", "../../etc/passwd", "/etc/passwd", "\0", "a" * 300])
def test_what_is_no_time_zone(zone: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        due_times(QUARTERS, zone, 0)


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("end")),
        st.tuples(st.just("step"), st.integers(-100, 100)),
        st.tuples(st.just("crash")),
        st.tuples(st.just("stop")),
        st.tuples(st.just("run")),
    ),
    min_size=5,
    max_size=25,
)


async def _do(world: Scheduled, op: tuple[Any, ...]) -> None:
    match op:
        case ("wait", minutes):
            await world.wait(60.0 * minutes)
        case ("end",):
            world.end_runs()
        case ("step", hours):
            world.now += timedelta(hours=hours)
        case ("crash",):
            world.crash()
        case ("stop",):
            for job in world.going_on():
                world.stop(job)
        case ("run",):
            world.change(Change.RUN)


@given(happenings, st.sampled_from(list(Overlap)), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_time_is_run_twice_and_runs_never_overlap_unasked(
    happening: list[tuple[Any, ...]], overlap: Overlap, catch_up: bool
) -> None:
    """Nor is a run lost that a crash has followed."""

    async def told(world: Scheduled) -> None:
        world.add(overlap=overlap, catch_up=catch_up)
        await passes()
        times, latest = set[int](), world.now
        for op in happening:
            before, began = len(world.runs), world.now
            await _do(world, op)
            if latest - world.now > timedelta(hours=3):
                # What was run by a clock that was wrong counts no more.
                times, latest = set(), world.now
            await world.wait(STEP_SECONDS)
            new = [due for due, _ in world.runs[before:]]
            if op != ("run",):
                assert not times & set(new)
                assert len(new) <= abs(world.now - began) / timedelta(minutes=15) + 2
            times, latest = times | set(new), max(latest, world.now)
            assert overlap is not Overlap.SKIP or len(world.going_on()) <= 1
            world.check()

    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        worlds: list[Scheduled] = []
        patch.setattr(schedules, "time_ns", lambda: int(worlds[0].now.timestamp()) * 10**9)
        in_a_world(Path(directory), worlds, told)
