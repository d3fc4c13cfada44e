"""Every field of a start, put in at one end and found at the other.

The fields are the contract's, read from its descriptor: a new one that is lost on the
way fails here, as does an option of the command that asks for nothing.
"""

import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils import uuid7

from jobworker.authz.identity import Identity
from jobworker.cli.commands.new_job import JobOptions, job_options, start_request
from jobworker.cli.display.job import job_json
from jobworker.client.messages import read_job, told
from jobworker.grpc_api.config import OutputLimits, QuotasConfig
from jobworker.grpc_api.service.messages import status_message
from jobworker.grpc_api.service.orders import StartOrders
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    Input,
    JobSnapshot,
    OnDisconnect,
    Profile,
    Reason,
    State,
    StopMode,
    SupervisorConfig,
    to_bytes,
)
from jobworker.supervisor.ipc.messages import job_message
from jobworker.supervisor.ipc.requests import Start, parse
from jobworker.supervisor.job import Job, Request
from jobworker.supervisor.journal.journal import Journal

FIELDS = pb.StartRequest.DESCRIPTOR.fields_by_name
# Texts, and the exact bytes in their place; a request has the one or the other.
AS_BYTES = {
    "commandName": "rawArguments",
    "Arguments": "rawArguments",
    "environment": "rawEnvironment",
    "workingDirectory": "rawWorkingDirectory",
}
# What a status tells in fields of its own, or to nobody.
BESIDES = {*AS_BYTES, *AS_BYTES.values(), "tenant", "requestID", "uploads"}
# What takes input is not started again: a request has the one or the other.
# And it begins at a time, or after a while.
EITHER, OR = {"input", "terminal", "startAt"}, {"restart", "startInSeconds"}
# What the JSON has under other names, or not at all.
UNTOLD = {
    *("command_name", "arguments", "raw_arguments", "raw_working_directory", "no_network"),
    *("environment", "raw_environment", "request_id"),
}
ALICE = Identity("alice", ("team-b", "team-a"), "01", datetime(2100, 1, 1, tzinfo=UTC))
ORDERS = StartOrders(SupervisorConfig(state_dir="/nowhere"), OutputLimits(), QuotasConfig())


def as_version_7(uuid: str) -> str:
    return f"{uuid[:14]}7{uuid[15:]}"


ids = st.uuids(version=4).map(str).map(as_version_7)
names = st.text("abcXYZ09", min_size=1, max_size=8)
# What not every value of its type is good for.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "requestID": names,
    "queue": st.text("abcXYZ", min_size=1, max_size=8),
    "after": st.lists(
        st.uuids(version=4).map(str).map(as_version_7), min_size=1, max_size=3, unique=True
    ),
    "StartRequest.name": st.text("xyzXYZ09", min_size=1, max_size=8).map("job-".__add__),
    "tenant": st.sampled_from(ALICE.tenants),
    "workingDirectory": names.map("/".__add__),
    "rawWorkingDirectory": st.binary(max_size=8).map(lambda data: b"/" + data.replace(b"\0", b"")),
    "environment": st.dictionaries(names, names, min_size=1, max_size=3),
    "StartRequest.labels": st.dictionaries(names, names, min_size=1, max_size=3),
    "rawArguments": st.lists(names.map(lambda name: b"\xff" + name.encode()), min_size=1),
    "Timestamp.nanos": st.integers(1, 999).map((10**6).__mul__),
    "port": st.integers(1, 65535),
    # Of an upload; what else is said of it must hold of its data.
    "Upload.name": st.binary(min_size=1, max_size=8).map(bytes.hex).map(str.encode),
    "Upload.size": st.just(0),
    "Upload.sha256": st.just(""),
    "delaySeconds": st.floats(0.5, 10),
    "maxDelaySeconds": st.floats(10, 100),
    "finalExitCodes": st.lists(st.integers(1, 64), min_size=1, unique=True).map(sorted),
    "memoryBytes": st.integers(2**22, 2**62),
    "openFiles": st.integers(8, 2**20),
    "processes": st.integers(1, 2**22),
    "ioWeight": st.integers(1, 10_000),
    "bytes": st.integers(4096, 2**62),
    "rate": st.integers(4096, 2**62),
}


def values_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values other than the one that stands for "not asked"."""
    for name in (field.name, f"{field.containing_type.name}.{field.name}"):
        if name in VALUES:
            return VALUES[name]
    if field.enum_type is not None:
        return st.sampled_from([one.number for one in field.enum_type.values if one.number])
    kinds: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.TYPE_DOUBLE: st.floats(0.5, 100),
        FieldDescriptor.TYPE_BOOL: st.just(True),
        FieldDescriptor.TYPE_STRING: names,
        FieldDescriptor.TYPE_BYTES: names.map(str.encode),
    }
    one = kinds.get(field.type, st.integers(1, 64))
    return st.lists(one, min_size=1, max_size=3) if field.is_repeated else one


def fill(draw: st.DrawFn, message: Any, left_out: set[str]) -> None:
    """Set every field of a message, and of those in it."""
    for field in message.DESCRIPTOR.fields:
        if field.name in left_out:
            continue
        value = getattr(message, field.name)
        if field.message_type is None:
            drawn = draw(values_of(field), label=field.name)
            if field.is_repeated:
                value.extend(drawn)
            else:
                setattr(message, field.name, drawn)
        elif field.message_type.GetOptions().map_entry:
            value.update(draw(values_of(field), label=field.name))
        else:
            fill(draw, value.add() if field.is_repeated else value, left_out)


@st.composite
def full_requests(draw: st.DrawFn) -> pb.StartRequest:
    """Requests with every field set, with their texts in one form or the other."""
    request = pb.StartRequest()
    texts = set(AS_BYTES.values()) if draw(st.booleans()) else set(AS_BYTES)
    fill(draw, request, texts | draw(st.sampled_from([EITHER, OR])))
    return request


def asked(request: pb.StartRequest) -> Request:
    """What the supervisor reads out of what the front makes of a request."""
    order = ORDERS.order(ALICE, str(uuid7()), request)
    frame = ipc.Request(seq=1, start=order).SerializeToString()
    _, call = parse(frame)
    assert isinstance(call, Start)
    return call.request


def status_of(request: Request, journal: Journal) -> pb.QueryStatusResponse:
    """What a caller is told of a job that has been on record and crossed the pipe."""
    journal.insert(Job(request, created_ns=1))
    journal.commit()
    recorded = journal.find(request.id)
    assert recorded is not None
    journal.delete(request.id)
    frame = job_message(recorded, gone=False).SerializeToString()
    status = status_message(JobSnapshot.from_message(ipc.Job.FromString(frame)))
    return pb.QueryStatusResponse.FromString(status.SerializeToString())


def check(request: pb.StartRequest, journal: Journal) -> None:
    """Every field of the request is at the other end."""
    order = asked(request)
    status = status_of(order, journal)
    shown = json.loads(job_json(read_job(status)))
    for field, value in request.ListFields():
        if field.name not in BESIDES:
            assert getattr(status.request, field.name) == value, field.name
    words = told(request)
    assert words.keys() - shown.keys() == UNTOLD
    for name in words.keys() - UNTOLD - {"working_directory", "tenant", "uploads"}:
        assert shown[name] == words[name], name
    # Of its files all but their data.
    files = [(one.name.decode(), one.mode, len(one.data)) for one in request.uploads]
    assert [(one["name"], one["mode"], one["size"]) for one in shown["uploads"]] == files
    assert shown["network"] is not request.noNetwork
    argv = list(request.rawArguments)
    argv = argv or [word.encode() for word in (request.commandName, *request.Arguments)]
    assert [os.fsencode(word) for word in shown["command"]] == argv
    assert [to_bytes(word) for word in order.argv] == argv
    variables = {name.encode(): value.encode() for name, value in request.environment.items()}
    variables |= {one.name: one.value for one in request.rawEnvironment}
    assert variables
    assert {to_bytes(n): to_bytes(v) for n, v in order.environment.items()} == variables
    cwd = request.rawWorkingDirectory or request.workingDirectory.encode()
    assert os.fsencode(shown["working_directory"]) == cwd
    assert (shown["tenant"], order.request_id) == (request.tenant, request.requestID)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal")
    yield opened
    opened.close()


@given(request=full_requests())
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_field_of_a_start_arrives_and_is_told(
    journal: Journal, request: pb.StartRequest
) -> None:
    check(request, journal)


OPTIONS = [
    *("--env", "A=b", "--cwd", "/srv", "--grace", "3s", "--timeout", "9s"),
    *("--stop-signal", "INT", "--stop-mode", "main", "--memory", "1G", "--cpus", "0.5"),
    *("--processes", "7", "--open-files", "64", "--io-weight", "50"),
    *("--isolation", "private", "--no-network", "--login"),
    *("--health-port", "80", "--health-interval", "1s", "--health-start", "9s"),
    *("--health-retries", "2"),
    *("--on-disconnect", "stop"),
    *("--queue", "narrow", "--priority", "5", "--queue-timeout", "1h"),
    *("--after", "01a21d73-4055-77fa-81f6-8aab15fe950b", "--on", "fail"),
    *("--upload", __file__),
    *("--output-limit", "1M", "--output-overflow", "stop-job", "--output-rate", "2M"),
    *("--tenant", "team-a", "--name", "nightly", "--label", "a=b", "--request-id", "key"),
]
INPUT = ["--interactive", "--tty", "--at", "23:59"]
RESTART = [
    *("--restart", "always", "--restart-max", "3", "--restart-delay", "2s", "--persist"),
    *("--in", "2h", "--restart-max-delay", "1m", "--healthy-after", "30s", "--no-restart-on", "5"),
]


def test_the_options_of_the_command_ask_for_every_field(journal: Journal) -> None:
    requests: list[pb.StartRequest] = []

    @click.command()
    @job_options
    def command(**job: Any) -> None:
        requests.append(start_request(JobOptions(**job)))

    given_options = {word for word in (*OPTIONS, *INPUT, *RESTART) if word.startswith("--")}
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert given_options == {one.opts[0] for one in options}, "an option is not tried here"
    for more, others in (INPUT, OR), (RESTART, EITHER):
        words = [*OPTIONS, *more, "--", "sh", "-c", "true"]
        done = CliRunner().invoke(command, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        request = requests.pop()
        # A time of day has no parts of a second.
        assert _unset(request) - set(AS_BYTES.values()) - {"startAt.nanos"} == others
        check(request, journal)


def _unset(message: Message) -> set[str]:
    """The fields that are as if nobody had asked, also in messages that are asked for."""
    there = {field.name for field, _ in message.ListFields()}
    missing = {field.name for field in message.DESCRIPTOR.fields} - there
    for field, value in message.ListFields():
        if isinstance(value, Message):
            missing |= {f"{field.name}.{name}" for name in _unset(value)}
    return missing


@pytest.mark.parametrize(
    ("ours", "prefix", "contract"),
    [
        # One of them is told as another.
        ([one for one in State if one is not State.RESTARTING], "JOB_STATE_", pb.JobState),
        (Reason, "END_REASON_", pb.EndReason),
        (StopMode, "STOP_MODE_", pb.StopMode),
        (Input, "INPUT_MODE_", pb.InputMode),
        (OnDisconnect, "ON_DISCONNECT_", pb.OnDisconnect),
        (Profile, "ISOLATION_", pb.Isolation),
    ],
)
def test_what_has_a_number_has_the_contracts(
    ours: Iterable[IntEnum], prefix: str, contract: Any
) -> None:
    """They cross the pipe, and are on record, as numbers."""
    told_there = {name.removeprefix(prefix): number for name, number in contract.items()}
    told_here = {one.name: one.value for one in ours}
    nothing = {name for name, number in told_there.items() if number == 0}
    assert {name: told_there[name] for name in told_there.keys() - nothing} == {
        name: number for name, number in told_here.items() if number
    }
