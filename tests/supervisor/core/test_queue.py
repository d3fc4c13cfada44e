"""Whose turn it is: shares are fair between tenants and users, and nobody holds up another."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.job import Entry
from jobworker.supervisor.quotas import Kind, Subject, subjects_of
from jobworker.supervisor.waiting.queue import Queue

TENANTS = {"ann": "red", "ben": "red", "cis": "blue", "dan": "green"}
entries = st.builds(
    lambda number, owner, queue, priority: Entry(
        f"{number:08}", owner, TENANTS[owner], queue, priority
    ),
    st.integers(0, 10**8 - 1),
    st.sampled_from(sorted(TENANTS)),
    st.sampled_from(["default", "gpu"]),
    st.integers(-2, 2),
)


def unblocked(_: Entry) -> str:
    return ""


QUEUES = st.sampled_from(["default", "gpu"])


@given(st.lists(entries, unique_by=lambda entry: entry.id), st.sets(QUEUES))
def test_the_next_is_of_the_tenant_and_the_user_with_the_fewest(
    waiting: list[Entry], full: set[str]
) -> None:
    """Of those that could be started; and of a user's own in a queue the first comes first."""
    queue, running = Queue(), Counter[Subject]()
    for entry in waiting:
        queue.add(entry)
    left = {entry.id: entry for entry in waiting}

    def blocked(entry: Entry) -> str:
        return "full" if entry.queue in full else ""

    while chosen := queue.next(running.__getitem__, blocked):
        del left[chosen.id]
        assert not blocked(chosen)
        user, tenant = subjects_of(chosen)
        for entry in left.values():
            if blocked(entry):
                continue
            other, others = subjects_of(entry)
            assert running[tenant] <= running[others]
            if tenant == others:
                assert running[user] <= running[other]
            if entry.line == chosen.line:
                assert chosen.rank < entry.rank
        running.update((user, tenant))
    assert all(map(blocked, left.values()))
    assert len(queue) == len(left)


@given(st.lists(st.sampled_from(["red", "blue"]), max_size=200), st.integers(1, 5))
def test_a_place_that_falls_free_goes_to_the_tenant_with_fewer(
    ends: list[str], places: int
) -> None:
    """Both always want more: whoever is ahead by two or more gets none."""
    queue, running = Queue(), Counter[Subject]()
    for number in range(2 * (len(ends) + places)):
        owner = ("ann", "cis")[number % 2]
        queue.add(Entry(f"{number:08}", owner, TENANTS[owner], "default"))
    red, blue = (Subject(Kind.TENANT, name) for name in ("red", "blue"))

    def fill() -> None:
        while running[red] + running[blue] < places:
            chosen = queue.next(running.__getitem__, unblocked)
            assert chosen is not None
            subjects = subjects_of(chosen)
            assert running[subjects[1]] == min(running[red], running[blue])
            running.update(subjects)

    fill()
    assert abs(running[red] - running[blue]) <= 1
    for tenant in ends:
        owner = {"red": "ann", "blue": "cis"}[tenant]
        ended = (Subject(Kind.USER, owner), Subject(Kind.TENANT, tenant))
        if running[ended[1]]:
            running.subtract(ended)
        fill()


@given(st.lists(entries, unique_by=lambda entry: entry.id), st.data())
def test_places_are_told_as_they_come(waiting: list[Entry], data: st.DataObject) -> None:
    queue = Queue()
    for entry in waiting:
        queue.add(entry)
    gone = data.draw(st.sets(st.sampled_from(waiting))) if waiting else set()
    for entry in gone:
        assert queue.discard(entry.id) == entry
        assert queue.discard(entry.id) is None
    left = [entry for entry in waiting if entry not in gone]
    for entry in left:
        line = sorted(one.rank for one in left if one.line == entry.line)
        assert queue.before(entry) == line.index(entry.rank)
        assert queue.any_in(entry.queue)
    assert len(queue) == len(left)
