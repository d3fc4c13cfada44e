"""Pages of some owners' jobs: exactly those, with no work for the jobs of others."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils import uuid7

from jobworker.supervisor.ipc.requests import Filter, List
from jobworker.supervisor.job import Job, Request, State
from jobworker.supervisor.journal.journal import Journal

ALICE, BOB = ("alice", "team-a"), ("bob", "team-b")
T = TypeVar("T")
_numbers = count()


def add(
    journal: Journal, whose: tuple[str, str], *, ended: bool = False, name: str = "", end: str = ""
) -> str:
    """Record a job of somebody's, with an ID that ends so; returns that."""
    job_id = str(uuid7())
    job_id = job_id[: len(job_id) - len(end)] + end
    request = Request(job_id, whose[0], whose[1], ("true",), {}, "/", 1.0, name=name)
    request = replace(request, labels={"a": "b"})
    job = Job(request, created_ns=1)
    job.state = State.ENDED if ended else State.RUNNING
    job.output_complete, job.ended_ns = ended, int(ended)
    journal.insert(job)
    return job_id


def steps(journal: Journal, read: Callable[[], T]) -> tuple[T, int]:
    """What is read, and how many instructions of SQLite's machine that takes."""
    taken = 0

    def one() -> int:
        nonlocal taken
        taken += 1
        return 0

    journal._database.set_progress_handler(one, 1)
    try:
        return read(), taken
    finally:
        journal._database.set_progress_handler(None, 0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.sqlite")) as one:
        yield one


@pytest.mark.parametrize(
    "asked",
    [
        List("", "", 100, False, "", "", 0, (ALICE,)),
        List("", "", 100, True, "", "", 0, (ALICE,)),
        List("0", "f", 3, False, "", "", 0, (ALICE,)),
        List("", "", 100, False, "alice", "team-a", 0, (ALICE,)),
        List("", "", 100, False, "", "", 2**62, (ALICE,)),
        List("", "", 100, False, "", "", 0, (ALICE,), ending="beef"),
        List("", "", 1, False, "", "", 0, (ALICE,), name="job"),
        List("", "", 100, False, "", "", 0, (ALICE,), filter=Filter(labels=(("a", "b"),))),
        List("", "", 100, False, "", "", 0, (ALICE,), filter=Filter(name="j*", command="true")),
        List("", "", 100, False, "", "", 0, (ALICE,), filter=Filter(states=(4,), failed=True)),
    ],
    ids=[
        *("all", "running", "a-part", "filtered", "ended", "an-ending", "a-name"),
        *("a-label", "a-pattern", "states"),
    ],
)
def test_others_jobs_are_no_work(journal: Journal, asked: List) -> None:
    """How long `list` took told how many jobs others had."""
    same = {"name": "job", "end": "beef"}
    mine = [add(journal, ALICE, ended=bool(number % 2), **same) for number in range(6)]
    add(journal, BOB)
    few, before = steps(journal, lambda: journal.page(asked))
    for number in range(2000):
        add(journal, BOB, ended=bool(number % 2), **same)
    many, after = steps(journal, lambda: journal.page(asked))
    assert [job.id for job in many] == [job.id for job in few]
    assert {job.id for job in many} <= set(mine)
    assert many
    assert after == before


def test_who_has_jobs_is_no_more_work_for_more_jobs(journal: Journal) -> None:
    add(journal, ALICE)
    add(journal, BOB)
    few, before = steps(journal, journal.owners)
    for _ in range(2000):
        add(journal, BOB)
    many, after = steps(journal, journal.owners)
    assert many == few == [ALICE, BOB]
    assert after == before


OWNERS = [("a", ""), ("a", "x"), ("b", "x"), ("b", "y")]


@given(
    st.lists(st.tuples(st.sampled_from(OWNERS), st.booleans()), max_size=30),
    st.sets(st.sampled_from(OWNERS), min_size=1),
    st.booleans(),
    st.integers(1, 12),
)
def test_they_are_those_of_a_plain_look(
    tmp_path_factory: pytest.TempPathFactory,
    jobs: list[tuple[tuple[str, str], bool]],
    whose: set[tuple[str, str]],
    running: bool,
    limit: int,
) -> None:
    """Page after page, as if all were read and the others left out."""
    path = tmp_path_factory.mktemp("journal") / f"{next(_numbers)}.sqlite"
    with closing(Journal(path)) as journal:
        ids = [(add(journal, owner, ended=ended), owner, ended) for owner, ended in jobs]
        wanted = [
            job_id
            for job_id, owner, ended in reversed(ids)
            if owner in whose and not (running and ended)
        ]
        found: list[str] = []
        while True:
            before = found[-1] if found else ""
            page = journal.page(List("", before, limit, running, "", "", 0, tuple(whose)))
            found += [job.id for job in page]
            if len(page) < limit:
                break
        assert found == wanted
        assert set(journal.owners()) == {owner for owner, _ in jobs}


def test_a_name_is_that_of_the_one_that_goes_on_or_else_of_the_newest(journal: Journal) -> None:
    also = ("alice", "team-c")
    add(journal, ALICE, ended=True, name="nightly")
    goes_on = add(journal, ALICE, name="nightly")
    add(journal, also, ended=True, name="nightly")
    add(journal, ALICE, ended=True, name="other")
    newest = add(journal, also, ended=True, name="other")
    add(journal, BOB, name="other")

    def found(name: str) -> list[str]:
        whose = (ALICE, also)
        return [job.id for job in journal.page(List("", "", 1, False, "", "", 0, whose, name=name))]

    assert found("nightly") == [goes_on]
    assert found("other") == [newest]
    assert found("another") == []


def test_how_often_a_name_was_used_is_no_more_work(journal: Journal) -> None:
    asked = List("", "", 1, False, "", "", 0, (ALICE,), name="nightly")
    add(journal, ALICE, ended=True, name="nightly")
    goes_on = add(journal, ALICE, name="nightly")
    _, before = steps(journal, lambda: journal.page(asked))
    for _ in range(500):
        add(journal, ALICE, ended=True, name="nightly")
    found, after = steps(journal, lambda: journal.page(asked))
    assert [job.id for job in found] == [goes_on]
    assert after == before


@given(st.lists(st.sampled_from(["beef", "0beef", "12-beef", "dead", "0dead"]), max_size=12))
def test_an_ending_finds_all_that_end_so(
    tmp_path_factory: pytest.TempPathFactory, ends: list[str]
) -> None:
    path = tmp_path_factory.mktemp("journal") / f"{next(_numbers)}.sqlite"
    with closing(Journal(path)) as journal:
        ids = [add(journal, ALICE, end=end) for end in ends]
        for asked in ("beef", "0beef", "-beef", "dead", "0dead", "f0dead"):
            page = journal.page(List("", "", 100, False, "", "", 0, (ALICE,), ending=asked))
            expected = [job_id for job_id in reversed(ids) if job_id.endswith(asked)]
            assert [job.id for job in page] == sorted(expected, reverse=True)
