"""The sums of kept output that quotas go by, whatever happens to the journal."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobworker.supervisor.errors import QuotaReached
from jobworker.supervisor.job import Job, Request, State
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.quotas import Counts, Kind, Quota, Quotas, Subject

OWNERS = ("alice", "bob")
TENANTS = ("team-a", "team-b", "")
JOBS = 4

# Of which job, what is done, and with how much output.
steps = st.lists(
    st.tuples(
        st.integers(0, JOBS - 1),
        st.sampled_from(("insert", "grow", "complete", "delete", "commit", "rollback", "reopen")),
        st.integers(0, 1000),
    ),
    max_size=40,
)


def job(number: int) -> Job:
    request = Request(
        id=f"00000000-0000-7000-8000-{number:012x}",
        owner=OWNERS[number % 2],
        tenant=TENANTS[number % 3],
        argv=("true",),
    )
    return Job(request, created_ns=number)


def expected(jobs: dict[int, Job]) -> Counter[Subject]:
    found: Counter[Subject] = Counter()
    for one in jobs.values():
        if one.state is State.ENDED and one.output_complete:
            found[Subject(Kind.USER, one.request.owner)] += one.output_end - one.output_begin
            found[Subject(Kind.TENANT, one.request.tenant)] += one.output_end - one.output_begin
    return found


def act(journal: Journal, jobs: dict[int, Job], number: int, what: str, size: int) -> None:
    """Do something to the journal, and to what it is expected to hold."""
    if what == "insert" and number not in jobs:
        jobs[number] = job(number)
        journal.insert(jobs[number])
    elif what in {"grow", "complete"} and number in jobs:
        jobs[number] = now = replace(jobs[number], output_begin=size // 2, output_end=size)
        if what == "complete":
            now.state, now.output_complete = State.ENDED, True
        journal.update(now)
    elif what == "delete" and number in jobs:
        del jobs[number]
        journal.delete(job(number).id)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_kept_output_is_what_the_journal_holds(done: list[tuple[int, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.sqlite"
        journal = Journal(path)
        jobs: dict[int, Job] = {}
        committed: dict[int, Job] = {}
        for number, what, size in done:
            act(journal, jobs, number, what, size)
            if what == "rollback":
                journal.rollback()
                jobs = dict(committed)
            if what in {"commit", "reopen"}:
                journal.commit()
                committed = dict(jobs)
            if what == "reopen":
                journal.close()
                journal = Journal(path)
            for kind, names in ((Kind.USER, OWNERS), (Kind.TENANT, TENANTS)):
                for subject in (Subject(kind, name) for name in names):
                    assert journal.kept_output.of(subject) == expected(jobs)[subject]
        journal.close()


@given(st.lists(st.floats(0, 40), max_size=30), st.integers(1, 5))
def test_no_minute_has_more_starts_than_allowed(pauses: list[float], allowed: int) -> None:
    now = 1000.0
    admitted: list[float] = []
    quotas = Quotas(Counts(lambda _: 0, lambda _: 0), lambda: now)
    for pause in pauses:
        now += pause
        within = sum(one > now - 60 for one in admitted)
        if within < allowed:
            quotas.admit(job(0).request, {Kind.USER: Quota(starts_per_minute=allowed)})
            admitted.append(now)
        else:
            with pytest.raises(QuotaReached):
                quotas.admit(job(0).request, {Kind.USER: Quota(starts_per_minute=allowed)})


def test_a_start_that_one_quota_refuses_counts_for_none() -> None:
    quotas = Quotas(Counts(lambda _: 0, lambda _: 0), lambda: 0.0)
    both = {Kind.USER: Quota(starts_per_minute=2), Kind.TENANT: Quota(starts_per_minute=1)}
    quotas.admit(job(0).request, both)
    with pytest.raises(QuotaReached) as caught:
        quotas.admit(job(0).request, both)
    assert caught.value.quota == "tenant/team-a/starts_per_minute"
    quotas.admit(job(0).request, {Kind.USER: both[Kind.USER]})
