"""What `jobworker top` makes of two looks: rates, sums and an order."""

import pytest

from jobworker.cli.top.sums import SORTS, Look, in_order, rows
from jobworker.cli.top.top import View
from jobworker.client.errors import Unreachable
from jobworker.client.messages import JobStatus, read_job
from jobworker.proto import workerservice_pb2 as pb


def job(name: str, owner: str = "alice", tenant: str = "a", **usage: float) -> JobStatus:
    used = pb.Usage()
    for field, value in usage.items():
        setattr(used, field, value)
    running = pb.JOB_STATE_RUNNING
    return read_job(
        pb.QueryStatusResponse(jobID=name, owner=owner, tenant=tenant, state=running, usage=used)
    )


def look(moment: float, *jobs: JobStatus) -> Look:
    return Look(moment, jobs, whole=True)


def test_rates_are_of_the_time_between_two_looks() -> None:
    before = look(10.0, job("x", userSeconds=1.0, systemSeconds=1.0, readBytes=100))
    used = job("x", userSeconds=3.0, systemSeconds=2.0, readBytes=300, memoryBytes=7)
    (row,) = rows(look(12.0, used), before, "job")
    assert (row.cpus, row.read, row.written, row.memory) == (1.5, 100.0, None, 7)
    assert row.disk == 100.0
    (first,) = rows(before, None, "job")
    assert (first.cpus, first.read) == (None, None)


def test_one_that_was_not_there_before_has_no_rate_and_hides_no_others() -> None:
    before = look(0.0, job("x", userSeconds=0.0, systemSeconds=0.0))
    new = job("y", userSeconds=50.0, systemSeconds=0.0)
    now = look(1.0, job("x", userSeconds=0.5, systemSeconds=0.0), new)
    (row,) = rows(now, before, "user")
    assert (row.key, row.jobs, row.cpus) == ("alice", 2, 0.5)


def test_sums_by_user_and_by_tenant() -> None:
    now = look(
        0.0,
        job("1", "alice", "a", memoryBytes=1, wallSeconds=5),
        job("2", "alice", "b", memoryBytes=2, wallSeconds=9),
        job("3", "bob", "b", memoryBytes=4),
    )
    by_user = {row.key: (row.jobs, row.memory, row.seconds) for row in rows(now, None, "user")}
    assert by_user == {"alice": (2, 3, 9.0), "bob": (1, 4, 0.0)}
    assert {row.key: row.memory for row in rows(now, None, "tenant")} == {"a": 1, "b": 6}


def test_what_is_most_comes_first_and_what_is_not_known_last() -> None:
    jobs = [job("1"), job("2", memoryBytes=5), job("3", memoryBytes=9), job("4", memoryBytes=0)]
    found = rows(look(0.0, *jobs), None, "job")
    assert [row.key for row in in_order(found, "memory")] == ["3", "2", "4", "1"]
    assert [row.key for row in in_order(found, "memory", backwards=True)] == ["4", "2", "3", "1"]
    for sort in SORTS:
        assert len(in_order(found, sort)) == len(jobs)


def test_a_server_that_goes_away_is_waited_for_once_it_was_there() -> None:
    view = View("job", "cpu", reverse=False)
    with pytest.raises(Unreachable):
        view.found(Unreachable("UNAVAILABLE", "no answer"))
    view.found(look(0.0, job("1")))
    view.found(Unreachable("UNAVAILABLE", "no answer"))
    assert view.now is not None
    assert "no answer" in view.said
    view.found(look(1.0))
    assert view.said == ""


def test_keys() -> None:
    view = View("job", "cpu", reverse=False)
    assert all(map(view.key, "2mrx"))
    assert (view.by, view.sort, view.reverse) == ("user", "memory", True)
    assert not view.key("q")
