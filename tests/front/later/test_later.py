"""Jobs that are started later: at a time, or after a while."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.cli.quantities import Ahead
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.chaos import kill
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server
from tests.support.waiting import until


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


def at(seconds: float) -> Timestamp:
    """So many seconds from now."""
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return stamp


def status(worker: WorkerServiceStub, job: str) -> pb.QueryStatusResponse:
    return worker.QueryStatus(pb.QueryStatusRequest(jobID=job))


def test_it_is_not_started_before_its_time(alice: WorkerServiceStub) -> None:
    then = at(1.5)
    jobs = [start(alice, "true", startAt=then), start(alice, "true", startInSeconds=1.5)]
    told = [status(alice, job) for job in jobs]
    assert {one.state for one in told} == {pb.JOB_STATE_PENDING}
    assert told[0].detail == f"it is started at {then.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
    assert told[1].detail.startswith("it is started in ")
    for job in jobs:
        ended = wait(alice, job)
        assert ended.exitCode == 0
        # Right to a clock's tick.
        assert ended.createdAt.ToNanoseconds() >= then.ToNanoseconds() - 10_000_000


def test_what_has_passed_is_at_once(alice: WorkerServiceStub) -> None:
    assert wait(alice, start(alice, "true", startAt=at(-100))).exitCode == 0


def test_it_waits_for_others_as_well(alice: WorkerServiceStub) -> None:
    first = start(alice, "sleep", "1000")
    later = start(alice, "true", startInSeconds=0.01, after=[first], afterOutcome=2)
    last = start(alice, "true", startInSeconds=3600, after=[first], afterOutcome=2)
    alice.Stop(pb.StopRequest(jobID=first, graceSeconds=0))
    assert wait(alice, later).exitCode == 0
    assert status(alice, last).detail.startswith("it is started in 3")
    alice.Stop(pb.StopRequest(jobID=last))
    ended = wait(alice, last)
    assert (ended.endReason, ended.exitCode) == (pb.END_REASON_STOPPED, 125)


def test_it_survives_the_supervisor(fresh_server: Server) -> None:
    with calling(fresh_server, "alice") as alice:
        begun = time.monotonic()
        jobs = [
            start(alice, "true", startAt=at(4), name="one"),
            start(alice, "true", startInSeconds=4, name="two"),
        ]
        kill(fresh_server, "supervisor")
        until(lambda: _pending(alice, jobs[0]))
        # Their names are theirs all the while.
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            start(alice, "true", name="two")
        for job in jobs:
            assert wait(alice, job).exitCode == 0
        assert time.monotonic() - begun >= 3.9


def _pending(worker: WorkerServiceStub, job: str) -> bool:
    try:
        return bool(status(worker, job).state == pb.JOB_STATE_PENDING)
    except grpc.RpcError:
        return False


@pytest.mark.parametrize(
    "fields",
    [
        {"startInSeconds": 400 * 86400.0},
        {"startAt": at(400 * 86400)},
        {"startAt": at(10), "startInSeconds": 1.0},
    ],
)
def test_what_cannot_be_asked_for(alice: WorkerServiceStub, fields: dict[str, object]) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        start(alice, "true", **fields)


def test_the_command(server: Server) -> None:
    job = server.ask("alice", "start", "--in", "1h", "--", "true")
    told = json.loads(server.ask("alice", "status", "-o", "json", job))
    assert (told["state"], told["start_in_seconds"], told["start_at"]) == ("pending", 3600.0, None)
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    other = server.ask("alice", "start", "--at", tomorrow.isoformat(), "--", "true")
    told = json.loads(server.ask("alice", "status", "-o", "json", other))
    assert told["start_at"] == tomorrow.isoformat().replace("+00:00", "Z")
    for words in (("--in", "1h", "--at", "23:59"), ("--at", "2020-01-01"), ("--at", "25:00")):
        assert server.run("alice", "start", *words, "--", "true").returncode == 2
    server.ask("alice", "stop", job, other)


def test_a_time_of_day_is_the_next_one() -> None:
    now = datetime.now().astimezone()
    for hour in range(24):
        then = Ahead().convert(f"{hour}:30", None, None).astimezone()
        assert (then.hour, then.minute) == (hour, 30)
        assert timedelta() < then - now < timedelta(hours=25, minutes=1)
    with pytest.raises(click.BadParameter):
        Ahead().convert("18:60", None, None)
