"""`list` filters, over the wire and on the command line: each alone, together, page by page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.client.messages import fits
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server, running_server

ENDED, RUNNING = pb.JOB_STATE_ENDED, pb.JOB_STATE_RUNNING


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("filters")
    with running_server(directory, USERS, POLICY) as up:
        yield up


@pytest.fixture(scope="module")
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


@pytest.fixture(scope="module")
def jobs(alice: WorkerServiceStub) -> dict[str, str]:
    """What they are for, and their IDs."""
    found = {
        "well": start(alice, "true", name="fit.1", labels={"run": "1", "kind": "fit"}),
        "badly": start(alice, "sh", "-c", "exit 3", name="fit.2", labels={"run": "2"}),
        "killed": start(alice, "sh", "-c", "kill -9 $$", labels={"run": "2", "kind": "fit"}),
    }
    for job in found.values():
        wait(alice, job)
    found["on"] = start(alice, "sleep", "1000", name="serve", labels={"kind": "serve"})
    return found


def names(worker: WorkerServiceStub, jobs: dict[str, str], **fields: Any) -> set[str]:
    called = {job: name for name, job in jobs.items()}
    reply = worker.List(pb.ListRequest(**fields))
    return {called[job.jobID] for job in reply.jobs}


def at(worker: WorkerServiceStub, job: str) -> Timestamp:
    return worker.QueryStatus(pb.QueryStatusRequest(jobID=job)).createdAt


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"states": [RUNNING]}, "on"),
        ({"states": [RUNNING, ENDED]}, "well badly killed on"),
        ({"failed": True}, "badly killed"),
        ({"reasons": [pb.END_REASON_SIGNALED]}, "killed"),
        ({"name": "fit.*"}, "well badly"),
        ({"name": "serve"}, "on"),
        ({"name": "fit.?"}, "well badly"),
        ({"name": "[f]it.1"}, ""),
        ({"labels": {"run": "2"}}, "badly killed"),
        ({"labels": {"run": "2", "kind": "fit"}}, "killed"),
        ({"labels": {"run": "'; --"}}, ""),
        ({"labelKeys": ["run"]}, "well badly killed"),
        ({"labelKeys": ["run", "kind"], "failed": True}, "killed"),
        ({"command": "exit 3"}, "badly"),
        ({"command": "sh -c kill"}, "killed"),
        ({"failed": True, "name": "fit*"}, "badly"),
        ({"running": True, "labels": {"kind": "serve"}}, "on"),
        ({"since": "killed"}, "killed on"),
        ({"until": "killed"}, "well badly"),
    ],
    ids=str,
)
def test_what_each_finds(
    alice: WorkerServiceStub, jobs: dict[str, str], fields: dict[str, Any], wanted: str
) -> None:
    for name in ("since", "until"):
        if name in fields:
            fields = {**fields, name: at(alice, jobs[fields[name]])}
    assert names(alice, jobs, **fields) == set(wanted.split())
    # The client looks at it once more: an older server tells of all, and `stop --label` would
    # stop them.
    everything = alice.List(pb.ListRequest()).jobs
    request = pb.ListRequest(**fields)
    fitting = {job.jobID for job in everything if fits(job, request)}
    by_name = {jobs[name] for name in wanted.split()}
    if "command" in fields or "running" in fields:
        # These older servers know, or no command acts by them.
        assert by_name <= fitting
    else:
        assert fitting == by_name


def test_pages_of_what_was_filtered(alice: WorkerServiceStub, jobs: dict[str, str]) -> None:
    request = pb.ListRequest(labelKeys=["run"], pageSize=1)
    found = []
    while True:
        reply = alice.List(request)
        found += [job.jobID for job in reply.jobs]
        request.pageToken = reply.nextPageToken
        if not reply.nextPageToken:
            break
    assert found == [jobs["killed"], jobs["badly"], jobs["well"]]


def test_nothing_of_others_is_found(server: Server, jobs: dict[str, str]) -> None:
    with calling(server, "bob") as bob:
        for fields in ({"labels": {"run": "2"}}, {"name": "*"}, {"failed": True}):
            assert names(bob, jobs, **fields) == set()
    with calling(server, "ann") as ann:
        assert names(ann, jobs, labels={"run": "2"}) == {"badly", "killed"}


@pytest.mark.parametrize(
    "labels",
    [{"": "a"}, {"a b": "c"}, {"a": "\n"}, {"a": "x" * 256}, {str(n): "" for n in range(17)}],
    ids=["no-key", "space", "control", "long", "many"],
)
def test_what_is_no_label(alice: WorkerServiceStub, labels: dict[str, str]) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        start(alice, "true", labels=labels)
    assert "(labels)" in told[0]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "*" * 5}, "name"),
        ({"name": "x" * 200}, "name"),
        ({"command": "x" * 200}, "command"),
    ],
    ids=["stars", "long", "command"],
)
def test_what_would_take_too_long(
    alice: WorkerServiceStub, fields: dict[str, Any], field: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        alice.List(pb.ListRequest(**fields))
    assert f"({field})" in told[0]


def test_the_command(server: Server, jobs: dict[str, str]) -> None:
    def ids(*words: str) -> list[str]:
        return server.ask("alice", "list", "-q", *words).split()

    assert ids("--failed") == [jobs["killed"], jobs["badly"]]
    assert ids("--state", "running", "--label", "kind") == [jobs["on"]]
    assert ids("--label", "run=2", "--reason", "signaled") == [jobs["killed"]]
    assert ids("--name", "fit*", "--sort", "name") == [jobs["well"], jobs["badly"]]
    assert ids("--name", "fit*", "--sort", "name", "--reverse") == [jobs["badly"], jobs["well"]]
    assert ids("--since", "1h", "--command", "exit 3") == [jobs["badly"]]
    assert ids("--until", "1h") == []
    table = server.ask("alice", "list", "--columns", "name,code,labels", "--label", "run=1")
    assert [line.split() for line in table.splitlines()] == [
        ["NAME", "CODE", "LABELS"],
        ["fit.1", "0", "kind=fit,run=1"],
    ]
    told = json.loads(server.ask("alice", "status", "-o", "json", jobs["well"]))
    assert told["labels"] == {"kind": "fit", "run": "1"}
    assert "Labels:    kind=fit,run=1\n" in server.ask("alice", "status", jobs["well"])
    done = server.run("alice", "list", "--columns", "nme")
    assert (done.returncode, b"there is no column 'nme'" in done.stderr) == (2, True)
    done = server.run("alice", "start", "--label", "no-value", "--", "true")
    assert (done.returncode, b"'no-value' is not KEY=VALUE" in done.stderr) == (2, True)
