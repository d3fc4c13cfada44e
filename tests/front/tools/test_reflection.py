"""What tools ask a server: its contract (reflection), for who may; and each part's health."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from jobworker.authz.audit.files import files_of
from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import channel_of
from tests.support.server import Server, running_server
from tests.support.waiting import until

POLICY = 'rules:\n  - {allow: start, to: "cn:alice", jobs: "{ou}/{cn}"}\n'
USERS = (("alice", "team-a"), ("bob", "team-b"))
CONTRACT = "workerservice.WorkerService"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    settings = "audit: {directory: audit}\nreflection: true\n"
    with running_server(directory, USERS, POLICY, settings) as running:
        yield running


def test_a_tool_learns_the_contract_and_nothing_beside_it(server: Server) -> None:
    with channel_of(server, "alice") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            CONTRACT,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        found = DescriptorPool(database).FindServiceByName(CONTRACT)
        ours = pb.DESCRIPTOR.services_by_name["WorkerService"]
        assert list(found.methods_by_name) == list(ours.methods_by_name)
        # What the processes say to each other is nobody's business.
        for name in ("jobworker/proto/ipc.proto", "jobworker/proto/admin.proto"):
            with pytest.raises(KeyError):
                database.FindFileByName(name)


def test_who_may_do_nothing_is_refused_and_it_is_recorded(server: Server) -> None:
    with channel_of(server, "bob") as channel:
        asked = ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as raised:
            list(ServerReflectionStub(channel).ServerReflectionInfo(iter([asked])))
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "no rule of the policy allows" in str(raised.value.details())
    lines = b"".join(file.read_bytes() for file in files_of(server.directory / "audit"))
    events = [json.loads(line)["event"] for line in lines.splitlines()]
    recorded = [(event["cn"], event["allowed"]) for event in events if event["action"] == "reflect"]
    assert ("bob", False) in recorded


def test_rubbish_is_refused(server: Server) -> None:
    with channel_of(server, "alice") as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None, None
        )
        with pytest.raises(grpc.RpcError) as raised:
            list(call(iter([b"\x0a\xff"])))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [line for line in server.log if "Traceback" in line]


def test_it_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY) as server, channel_of(server, "alice") as channel:
        asked = ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as raised:
            list(ServerReflectionStub(channel).ServerReflectionInfo(iter([asked])))
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_each_part_has_a_name(server: Server) -> None:
    with channel_of(server, "bob") as channel:
        for part in ("", "policy", "tls", "audit", "supervisor", CONTRACT):
            answer = HealthStub(channel).Check(HealthCheckRequest(service=part))
            assert answer.status == SERVING, part


def test_a_supervisor_that_does_not_answer_is_told_of(server: Server) -> None:
    """It is stopped; the keeper sees a process that lives."""
    children = psutil.Process(server.process.pid).children()
    (supervisor,) = (one for one in children if "supervisor" in " ".join(one.cmdline()))

    def status(channel: grpc.Channel, part: str) -> object:
        return HealthStub(channel).Check(HealthCheckRequest(service=part)).status

    with channel_of(server, "bob") as channel:
        supervisor.send_signal(signal.SIGSTOP)
        try:
            for part in ("supervisor", CONTRACT):
                until(lambda name=part: status(channel, name) == NOT_SERVING)  # type: ignore[misc]
            assert status(channel, "") == SERVING
        finally:
            supervisor.send_signal(signal.SIGCONT)
        until(lambda: status(channel, "supervisor") == status(channel, CONTRACT) == SERVING)
    assert any("the supervisor does not answer" in line for line in server.log)
