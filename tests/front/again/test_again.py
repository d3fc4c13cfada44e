"""`again`: what a job was, started once more by the rights of now."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY, USERS
from tests.front.admin.test_admin import audited
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


def again(worker: WorkerServiceStub, job: str, **fields: str) -> str:
    return str(worker.Again(pb.AgainRequest(jobID=job, **fields)).jobID)


def test_all_of_it_is_the_same(alice: WorkerServiceStub) -> None:
    """Bytes that are no text as well, and what nobody is shown."""
    first = alice.Start(
        pb.StartRequest(
            rawArguments=[b"sh", b"-c", b'printf "%s %s" "$KEY" "$PWD"; exit 3', b"\xff"],
            rawEnvironment=[pb.RawVariable(name=b"KEY", value=b"\xfe secret")],
            workingDirectory="/usr",
            timeoutSeconds=60,
            name="again.1",
            labels={"run": "1"},
            stopMode=pb.STOP_MODE_MAIN,
        )
    ).jobID
    before = wait(alice, first)
    second = again(alice, first)
    after = wait(alice, second)
    assert second > first
    assert output(alice, second) == output(alice, first) == b"\xfe secret /usr"
    assert (after.exitCode, after.rawArguments) == (3, before.rawArguments)
    assert after.request == before.request


def test_its_name_is_free_or_another_is_given(alice: WorkerServiceStub) -> None:
    first = start(alice, "sleep", "1000", name="held")
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        again(alice, first)
    second = again(alice, first, name="other")
    for job in (first, second):
        alice.Stop(pb.StopRequest(jobID=job, graceSeconds=0))
    assert alice.QueryStatus(pb.QueryStatusRequest(jobID="other")).jobID == second


def test_repeating_the_call_is_one_job(alice: WorkerServiceStub) -> None:
    first = start(alice, "true")
    assert len({again(alice, first, requestID="once-more") for _ in range(3)}) == 1


def test_it_is_one_s_own_alone(server: Server, alice: WorkerServiceStub) -> None:
    """Also of those who may see and start everything: the environment is the owner's."""
    job = start(alice, "true")
    with calling(server, "ann") as ann, refused(grpc.StatusCode.PERMISSION_DENIED) as told:
        again(ann, job)
    assert "only one's own are started again" in told[0]
    with calling(server, "bob") as bob, refused(grpc.StatusCode.NOT_FOUND):
        again(bob, job)


def test_what_cannot_be(server: Server, alice: WorkerServiceStub, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"data")
    stored = server.ask("alice", "start", "--stdin", str(data), "--", "cat")
    outer = start(alice, "sleep", "1000")
    inner = alice.Exec(pb.ExecRequest(jobID=outer, start=pb.StartRequest(commandName="true"))).jobID
    for job, words in ((stored, "its stdin was a file"), (inner, f"it ran within job {outer}")):
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as told:
            again(alice, job)
        assert words in told[0]
    alice.Stop(pb.StopRequest(jobID=outer, graceSeconds=0))


def test_the_policy_of_now_decides(tmp_path: Path) -> None:
    settings = "audit: {directory: audit}\n"
    with (
        running_server(tmp_path, USERS, POLICY, settings) as server,
        calling(server, "bob") as bob,
    ):
        job = start(bob, "true")
        denied = '  - {deny: start, to: "cn:bob", jobs: "*/*", command: "true"}\n'
        (server.directory / "policy.yaml").write_text(POLICY + denied)
        asked = pb.CanIRequest(action="start", start=pb.StartRequest(commandName="true"))
        until(lambda: not bob.CanI(asked).allowed)
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            again(bob, job)
        mine = [one["allowed"] for one in audited(server, "start") if one["cn"] == "bob"]
        assert mine == [True, False]


def test_the_command(server: Server) -> None:
    script = "echo $JOBWORKER_JOB_ID"
    first = server.ask("alice", "start", "--name", "c.1", "--", "sh", "-c", script)
    server.run("alice", "wait", first)
    second = server.ask("alice", "again", "c.1")
    assert server.run("alice", "wait", second).returncode == 0
    assert server.ask("alice", "logs", "c.1") == second
    told = json.loads(server.ask("alice", "again", "-o", "json", first))
    assert told["command"] == ["sh", "-c", script]
    done = server.run("alice", "again", "no-such-job")
    assert done.returncode == 3
    assert b"there is no job 'no-such-job'" in done.stderr
