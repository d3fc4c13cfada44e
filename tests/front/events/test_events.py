"""What happens to jobs, as it is told: once, in order, to who may list them, through any death."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.support.chaos import kill
from tests.support.client import calling, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

SECONDS = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    audit = "audit: {directory: audit}\n"
    with running_server(tmp_path_factory.mktemp("events"), USERS, POLICY, audit) as running:
        yield running


@contextmanager
def following(
    worker: WorkerServiceStub, **fields: object
) -> "Iterator[Queue[pb.Event | grpc.RpcError]]":
    """What is told, as it comes, until the block ends; the first is where it begins."""
    found: Queue[pb.Event | grpc.RpcError] = Queue()
    call = worker.Events(pb.EventsRequest(**fields))

    def read() -> None:
        try:
            for event in call:
                found.put(event)
        except grpc.RpcError as error:
            found.put(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield found
    finally:
        call.cancel()
        reader.join()


def states(
    found: "Queue[pb.Event | grpc.RpcError]", job: str, *, attempts: bool = False
) -> list[str]:
    """The states that are told of a job, up to its end."""
    seen: list[str] = []
    while not seen or not seen[-1].startswith("ENDED"):
        event = found.get(timeout=SECONDS)
        assert isinstance(event, pb.Event), event
        if event.job.jobID == job:
            state = pb.JobState.Name(event.job.state).removeprefix("JOB_STATE_")
            seen.append(f"{state} {event.job.attempt}" if attempts else state)
    return seen


def known(worker: WorkerServiceStub, **fields: object) -> list[pb.Event]:
    return list(worker.Events(pb.EventsRequest(noFollow=True, **fields)))


def test_each_state_is_told_as_it_comes(server: Server) -> None:
    with calling(server, "alice") as alice, following(alice) as found:
        begin = found.get(timeout=SECONDS)
        assert isinstance(begin, pb.Event)
        assert begin.at
        first = start(alice, "sleep", "1000")
        alice.Pause(pb.PauseRequest(jobID=first))
        alice.Resume(pb.ResumeRequest(jobID=first))
        later = start(alice, "true", after=[first], afterOutcome=pb.AFTER_OUTCOME_ANY)
        alice.Stop(pb.StopRequest(jobID=first, graceSeconds=0))
        assert states(found, first) == ["RUNNING", "PAUSED", "RUNNING", "STOPPING", "ENDED"]
        told = states(found, later)
    # What waited was told of before the other had ended: see the list of all.
    assert told[-1] == "ENDED"
    all_of_it = [event for event in known_of(server, "alice") if event.job.jobID == later]
    assert all_of_it[0].job.state == pb.JOB_STATE_PENDING
    assert all_of_it[-1].job.exitCode == 0


def known_of(server: Server, user: str) -> list[pb.Event]:
    with calling(server, user) as worker:
        return known(worker)


def test_attempts_are_told_one_by_one(server: Server, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f'echo x >> {count}; [ "$(wc -l < {count})" -ge 2 ]'
    how = pb.RestartPolicy(when=pb.RESTART_WHEN_ON_FAILURE, delaySeconds=0.5)
    with calling(server, "alice") as alice, following(alice) as found:
        found.get(timeout=SECONDS)
        job = start(alice, "sh", "-c", script, restart=how)
        told = states(found, job, attempts=True)
    assert told[-1] == "ENDED 2"
    assert "PENDING 2" in told
    assert [one for one in told if one.startswith("RUNNING")] == ["RUNNING 1", "RUNNING 2"]


def test_who_may_not_list_a_job_is_told_nothing_of_it(server: Server) -> None:
    with (
        calling(server, "alice") as alice,
        calling(server, "bob") as bob,
        calling(server, "ann") as ann,
        following(bob) as bobs,
        following(ann) as anns,
    ):
        bobs.get(timeout=SECONDS), anns.get(timeout=SECONDS)
        hers, his = start(alice, "true"), None
        wait(alice, hers)
        his = start(bob, "true")
        # Who reads everything is told of both; bob of his alone, and hers came before it.
        assert states(anns, hers)[-1] == states(anns, his)[-1] == "ENDED"
        first = bobs.get(timeout=SECONDS)
        assert isinstance(first, pb.Event)
        assert first.job.jobID == his
        assert {event.job.owner for event in known(bob) if not event.at} == {"bob"}


def test_a_right_that_is_taken_away_ends_what_is_told(server: Server) -> None:
    policy = server.directory / "policy.yaml"
    with calling(server, "alice") as alice, calling(server, "ann") as ann, following(ann) as found:
        found.get(timeout=SECONDS)
        before = start(alice, "true")
        assert states(found, before)[-1] == "ENDED"
        rule = "  - {deny: read, to: cn:ann, jobs: '*/alice'}\n"
        policy.write_text(POLICY + rule)
        try:
            seen = pb.QueryStatusRequest(jobID=before)
            until(lambda: _is_refused(ann, seen))
            hidden = start(alice, "true")
            wait(alice, hidden)
        finally:
            policy.write_text(POLICY)
        until(lambda: not _is_refused(ann, seen))
        after = start(alice, "true")
        told: list[str] = []
        while not told or told[-1] != after:
            event = found.get(timeout=SECONDS)
            assert isinstance(event, pb.Event)
            told.append(event.job.jobID)
        assert hidden not in told


def _is_refused(worker: WorkerServiceStub, request: pb.QueryStatusRequest) -> bool:
    try:
        worker.QueryStatus(request)
    except grpc.RpcError:
        return True
    return False


def test_a_cursor_goes_on_where_another_call_was(server: Server) -> None:
    with calling(server, "alice") as alice:
        first = start(alice, "true", name="first")
        wait(alice, first)
        until(lambda: known(alice)[-1].job.state == pb.JOB_STATE_ENDED)
        *_, last = known(alice)
        second = start(alice, "true", name="second")
        wait(alice, second)
        until(lambda: known(alice)[-1].cursor != last.cursor)
        until(lambda: known(alice)[-1].job.state == pb.JOB_STATE_ENDED)
        rest = known(alice, cursor=last.cursor)
        assert rest[0].at
        assert {event.job.jobID for event in rest[1:]} == {second}
        named = known(alice, name="fir*")
        assert {event.job.jobID for event in named[1:]} == {first}
        assert known(alice, since=last.time)[1].time.ToNanoseconds() >= last.time.ToNanoseconds()
        for cursor in ("x", "0a0a0a0a-1", "-1-1", "0a0a0a0a-1-x", "0a0a0a0a-1-" + "1" * 80):
            with refused(grpc.StatusCode.INVALID_ARGUMENT):
                known(alice, cursor=cursor)
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            known(alice, cursor=last.cursor, since=last.time)


def test_no_end_is_left_out_whatever_dies(fresh_server: Server) -> None:
    """The command goes on by itself; what ended meanwhile is told, too."""
    with calling(fresh_server, "alice") as alice:
        going_on = start(alice, "sleep", "1000")
        with fresh_server.popen("alice", "events", "-f", "--since", "1h", "-o", "json") as command:
            assert command.stdout is not None
            told: list[str] = []

            def read() -> None:
                assert command.stdout is not None
                for line in command.stdout:
                    one = json.loads(line)
                    if one["job"] and one["job"]["state"] == "ended":
                        told.append(one["job"]["id"])

            reader = threading.Thread(target=read)
            reader.start()
            first = start(alice, "true")
            until(lambda: first in told)
            jobs = [first]
            for victim in ("front", "supervisor", "front"):
                kill(fresh_server, victim)
                job = _start_again(alice)
                jobs.append(job)
                until(lambda job=job: job in told)
            command.kill()
            reader.join()
        assert set(told) == set(jobs)
        alice.Stop(pb.StopRequest(jobID=going_on, graceSeconds=0))


def _start_again(worker: WorkerServiceStub) -> str:
    found: list[str] = []
    request = pb.StartRequest(commandName="true", requestID=os.urandom(8).hex())

    def started() -> bool:
        try:
            found.append(worker.Start(request, wait_for_ready=True, timeout=60).jobID)
        except grpc.RpcError:
            return False
        return True

    until(started)
    return found[-1]


def test_the_command(server: Server, tmp_path: Path) -> None:
    # A state that lasts but a moment may be left out.
    script = 'until [ -e "$0" ]; do sleep 0.02; done; exit 3'
    words = ("--name", "told", "--label", "a=b", "--", "sh", "-c", script, str(tmp_path / "go"))
    job = server.ask("alice", "start", *words)
    until(lambda: "told  running" in server.ask("alice", "events", "-l", "a=b"))
    (tmp_path / "go").touch()
    server.run("alice", "wait", job)
    until(lambda: "told  ended: exited with 3" in server.ask("alice", "events", "--name", "told"))
    assert "  alice  told  running" in server.ask("alice", "events", "-l", "a=b")
    assert server.ask("alice", "events", "-l", "a=c") == ""
    assert server.ask("bob", "events", "--name", "told") == ""
    assert server.ask("alice", "events", "--since", "1h", "--name", "told").count("told") == 2
    lines = server.ask("alice", "events", "-o", "json", "--name", "told").splitlines()
    last = json.loads(lines[-1])
    assert (last["job"]["id"], last["job"]["exit_code"]) == (job, 3)
    assert server.ask("alice", "events", "--cursor", last["cursor"], "--name", "told") == ""
    gone = server.run("alice", "events", "--cursor", "0a0a0a0a-7-1000", "--name", "told")
    assert gone.returncode == 0
    assert b"what happened before is not known any more" in gone.stderr
    assert server.run("alice", "events", "-l", "a").returncode == 2
