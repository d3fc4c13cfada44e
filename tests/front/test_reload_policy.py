"""New policies while the server serves: put in force at once, or refused and said so."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.conftest import POLICY
from tests.support.client import calling, channel_of, refused, start
from tests.support.server import Server
from tests.support.waiting import until

NO_OUTPUT_FOR_ALICE = f"""{POLICY}
  - deny: output
    to: cn:alice
    jobs: "*/*"
"""
NOTHING_FOR_ALICE = f"""{POLICY}
  - deny: "*"
    to: cn:alice
    jobs: "*/*"
"""
NO_POLICY = "rules:\n  - allow: strat\n    to: cn:alice\n    jobs: '*/*'\n"


def rename_over(path: Path, text: str) -> None:
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.rename(path)


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


def turn_link(path: Path, text: str) -> None:
    """Have a link lead to another directory, as Kubernetes does for its config maps."""
    versions = path.parent / "versions"
    version = versions / str(len(list(versions.glob("*"))))
    version.mkdir(parents=True)
    (version / path.name).write_text(text)
    new = path.parent / "new"
    new.symlink_to(version)
    new.rename(path.parent / "current")
    if not path.is_symlink():
        link = path.parent / "link"
        link.symlink_to(f"current/{path.name}")
        link.rename(path)


Write = Callable[[Path, str], None]


def policy_of(server: Server) -> Path:
    return server.directory / "policy.yaml"


@contextmanager
def running_job(server: Server) -> Iterator[tuple[WorkerServiceStub, str]]:
    """A job of alice's that has written a line and goes on."""
    with calling(server, "alice") as alice:
        job_id = start(alice, "sh", "-c", "echo on; exec sleep 1000")
        yield alice, job_id


def following(worker: WorkerServiceStub, job_id: str) -> "grpc.CallIterator[pb.GetOutputResponse]":
    """A stream of the job's output that has begun."""
    stream = worker.GetOutput(pb.GetOutputRequest(jobID=job_id, raw=True))
    assert next(stream).data == b"on\n"
    return stream


def told(server: Server, words: str) -> Callable[[], bool]:
    return lambda: any(words in line for line in server.log)


@pytest.mark.parametrize("write", [rename_over, rewrite, turn_link])
def test_open_streams_are_decided_anew(fresh_server: Server, write: Write) -> None:
    with running_job(fresh_server) as (alice, job_id), calling(fresh_server, "ann") as ann:
        hers, auditors = following(alice, job_id), following(ann, job_id)
        write(policy_of(fresh_server), NO_OUTPUT_FOR_ALICE)
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            next(hers)
        assert "output refused to cn=alice" in words[0]
        assert "deny rule at policy.yaml:" in words[0]
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            list(alice.GetOutput(pb.GetOutputRequest(jobID=job_id)))
        write(policy_of(fresh_server), POLICY)
        until(lambda: _may_read(alice, job_id))
        assert auditors.is_active()
        alice.Stop(pb.StopRequest(jobID=job_id))
        assert list(auditors) == []


def test_waiting_calls_are_decided_anew(fresh_server: Server) -> None:
    with running_job(fresh_server) as (alice, job_id), calling(fresh_server, "ann") as ann:
        following(alice, job_id)
        waiting = alice.Wait.future(pb.WaitRequest(jobID=job_id))
        auditors = ann.Wait.future(pb.WaitRequest(jobID=job_id))
        following(ann, job_id)
        policy_of(fresh_server).write_text(NOTHING_FOR_ALICE)
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            waiting.result()
        assert "status refused to cn=alice" in words[0]
        with refused(grpc.StatusCode.NOT_FOUND):
            alice.QueryStatus(pb.QueryStatusRequest(jobID=job_id))
        policy_of(fresh_server).write_text(POLICY)
        until(lambda: _may_read(alice, job_id))
        alice.Stop(pb.StopRequest(jobID=job_id))
        assert auditors.result().signal == 15


def test_a_file_that_is_no_policy_changes_nothing(fresh_server: Server) -> None:
    with (
        running_job(fresh_server) as (alice, job_id),
        channel_of(fresh_server, "alice") as channel,
    ):
        stream = following(alice, job_id)
        health = watching(channel, "policy")
        assert next(health).status == HealthCheckResponse.SERVING
        policy_of(fresh_server).write_text(NO_POLICY)
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        until(told(fresh_server, "the policy stays as it was: "))
        until(told(fresh_server, "policy.yaml:2:12: 'strat' is no action"))
        assert stream.is_active()
        assert _may_read(alice, job_id)
        policy_of(fresh_server).write_text(NO_OUTPUT_FOR_ALICE)
        assert next(health).status == HealthCheckResponse.SERVING
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            next(stream)


def test_a_policy_that_fails_its_cases_changes_nothing(fresh_server: Server) -> None:
    cases = policy_of(fresh_server).with_name("policy.cases.yaml")
    with (
        running_job(fresh_server) as (alice, job_id),
        channel_of(fresh_server, "alice") as channel,
    ):
        stream = following(alice, job_id)
        health = watching(channel, "policy")
        assert next(health).status == HealthCheckResponse.SERVING
        cases.write_text("- {who: cn=alice ou=team-a, may: output, job: team-a/alice}\n")
        policy_of(fresh_server).write_text(NO_OUTPUT_FOR_ALICE)
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        until(told(fresh_server, "policy.cases.yaml:1:34: expected allowed, but output refused"))
        assert stream.is_active()
        # The cases may be what was wrong.
        os.unlink(cases)
        assert next(health).status == HealthCheckResponse.SERVING
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            next(stream)


def test_a_policy_that_is_gone_stays_in_force(fresh_server: Server) -> None:
    with (
        running_job(fresh_server) as (alice, job_id),
        channel_of(fresh_server, "alice") as channel,
    ):
        health = watching(channel, "policy")
        assert next(health).status == HealthCheckResponse.SERVING
        os.unlink(policy_of(fresh_server))
        assert next(health).status == HealthCheckResponse.NOT_SERVING
        assert _may_read(alice, job_id)


def test_health_is_for_certified_clients(fresh_server: Server) -> None:
    with channel_of(fresh_server, "bob") as channel:
        health = HealthStub(channel)
        for part in ("", "policy", "tls"):
            answer = health.Check(HealthCheckRequest(service=part))
            assert answer.status == HealthCheckResponse.SERVING
        with refused(grpc.StatusCode.NOT_FOUND):
            health.Check(HealthCheckRequest(service="no such part"))


def watching(channel: grpc.Channel, part: str) -> "grpc.CallIterator[HealthCheckResponse]":
    return HealthStub(channel).Watch(HealthCheckRequest(service=part))


def _may_read(worker: WorkerServiceStub, job_id: str) -> bool:
    try:
        list(worker.GetOutput(pb.GetOutputRequest(jobID=job_id, noFollow=True)))
    except grpc.RpcError as error:
        if error.code() not in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND}:
            raise
        return False
    return True
