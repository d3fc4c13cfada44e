"""The end of a turn: what is told to anybody is on the disk by then, not only with the kernel."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from jobworker.supervisor.job import Job, Request
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.turn import Turn

DEADLINE_SECONDS = 60
ID = "01a00000-0000-7000-8000-000000000000"
OTHER = ID[:-1] + "9"


class Noting(Journal):
    """A journal that notes when it syncs what has been committed."""

    def __init__(self, path: Path, order: list[str]) -> None:
        super().__init__(path)
        self._order = order

    def sync(self) -> None:
        if self.dirty:
            self._order.append("sync")
        super().sync()


async def settled(
    directory: Path, act: Callable[[Turn, LiveJob, list[str]], None], *, watched: bool
) -> list[str]:
    """What happens, and in which order, by the end of a turn in which `act` was called."""
    order: list[str] = []
    journal = Noting(directory / "journal.sqlite", order)
    live = LiveJob(Job(Request(ID, "alice", "team-a", ("true",)), 1))
    journal.insert(live.job)
    journal.sync()
    order.clear()
    turn = Turn(
        asyncio.get_running_loop(),
        journal,
        lambda _: order.append("told"),
        lambda _: order.append("told of removal"),
        lambda job_id: watched and job_id == ID,
    )
    act(turn, live, order)
    turn.end()
    by_then = list(order)
    # What nobody waits for is on the disk soon, too.
    async with asyncio.timeout(DEADLINE_SECONDS):
        while "sync" not in order:
            await asyncio.sleep(0)
    journal.close()
    return by_then


@pytest.mark.parametrize(
    ("watched", "order"), [(True, ["sync", "told"]), (False, ["told"])], ids=["watched", "unseen"]
)
def test_a_change_is_synced_before_who_watches_hears_of_it(
    tmp_path: Path, watched: bool, order: list[str]
) -> None:
    def change(turn: Turn, live: LiveJob, _: list[str]) -> None:
        turn.update(live)

    assert asyncio.run(settled(tmp_path, change, watched=watched)) == order


def test_a_change_is_synced_before_an_answer(tmp_path: Path) -> None:
    def change_and_answer(turn: Turn, live: LiveJob, order: list[str]) -> None:
        turn.update(live)
        turn.answer(lambda: order.append("answer"))

    done = asyncio.run(settled(tmp_path, change_and_answer, watched=False))
    assert done == ["sync", "answer", "told"]


def test_orders_come_before_the_sync_that_many_share(tmp_path: Path) -> None:
    def start(turn: Turn, live: LiveJob, order: list[str]) -> None:
        other = LiveJob(Job(Request(ID[:-1] + "1", "alice", "team-a", ("true",)), 1))
        turn.insert(other, then=lambda: order.append("orders"), failed=order.append)

    assert asyncio.run(settled(tmp_path, start, watched=False)) == ["orders", "sync"]


def test_what_one_step_raises_leaves_the_others_to_be_done(tmp_path: Path) -> None:
    """An answer, a launch or a callback that raised took the rest of its turn with it."""

    def fail() -> None:
        raise OSError(24, "Too many open files")

    def several(turn: Turn, live: LiveJob, order: list[str]) -> None:
        for number in "12":
            request = Request(ID[:-1] + number, "alice", "team-a", ("true",))
            other = LiveJob(Job(request, 1))
            orders = fail if number == "1" else lambda: order.append("orders")
            turn.insert(other, then=orders, failed=order.append)
        turn.after_commit(fail)
        turn.after_commit(lambda: order.append("committed"))
        turn.answer(fail)
        turn.answer(lambda: order.append("answer"))
        turn.update(live)

    done = asyncio.run(settled(tmp_path, several, watched=False))
    assert done == ["orders", "sync", "committed", "answer", "told"]


class Commits(Journal):
    """A journal that notes its commits."""

    def __init__(self, path: Path, order: list[str]) -> None:
        super().__init__(path)
        self._order = order

    def commit(self, *, worth_a_sync: bool = True) -> None:
        if self._database.in_transaction:
            self._order.append("commit")
        super().commit(worth_a_sync=worth_a_sync)


@pytest.mark.parametrize(
    ("about", "order"),
    [
        (None, ["commit", "recorded", "told"]),
        (OTHER, ["answer", "commit", "recorded", "told"]),
        (ID, ["commit", "recorded", "answer", "told"]),
        ("", ["commit", "recorded", "answer", "told"]),
    ],
    ids=["nobody asks", "another job is asked for", "it is asked for", "all are asked for"],
)
def test_what_can_be_found_out_again_is_recorded_before_it_is_told(
    tmp_path: Path, about: str | None, order: list[str]
) -> None:
    """An exit leaves its commit to a later turn, unless somebody is to hear of that job."""

    async def act() -> list[str]:
        done: list[str] = []
        journal = Commits(tmp_path / "journal.sqlite", done)
        live = LiveJob(Job(Request(ID, "alice", "team-a", ("true",)), 1))
        journal.insert(live.job)
        journal.sync()
        done.clear()
        told = asyncio.Event()

        def tell(_: LiveJob) -> None:
            done.append("told")
            told.set()

        loop = asyncio.get_running_loop()
        turn = Turn(loop, journal, tell, lambda _: None, lambda _: False)
        turn.learned(live)
        turn.after_commit(lambda: done.append("recorded"))
        if about is not None:
            turn.answer(lambda: done.append("answer"), about)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await told.wait()
        journal.close()
        return done

    assert asyncio.run(act()) == order


def test_a_job_whose_end_waits_for_its_commit_can_be_removed(tmp_path: Path) -> None:
    async def act() -> list[str]:
        done: list[str] = []
        journal = Commits(tmp_path / "journal.sqlite", done)
        live = LiveJob(Job(Request(ID, "alice", "team-a", ("true",)), 1))
        journal.insert(live.job)
        journal.sync()
        done.clear()
        loop = asyncio.get_running_loop()
        turn = Turn(loop, journal, lambda _: done.append("told"), lambda _: None, lambda _: False)
        turn.learned(live)
        turn.after_commit(lambda: done.append("forgotten"))
        turn.end()
        assert done == []
        turn.settle_all()
        journal.close()
        return done

    assert asyncio.run(act()) == ["commit", "forgotten", "told"]
