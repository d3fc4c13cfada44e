"""Every field of every request, whatever it holds: it works, or the answer names the field."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.client import calling, channel_of, start, wait
from tests.support.server import Server

METHODS = pb.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name
INVALID, OK = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK
# What else may be wrong with a good value: there is no such job, program or
# directory; it is not the caller's; this host, or the job, cannot do that now.
ALSO = {
    # Each is within another job.
    "Exec.start.requestID": {grpc.StatusCode.ALREADY_EXISTS},
    # And each of these is of another job.
    "Again.requestID": {grpc.StatusCode.ALREADY_EXISTS},
    "jobID": {grpc.StatusCode.NOT_FOUND},
    "after": {grpc.StatusCode.NOT_FOUND},
    "tenant": {grpc.StatusCode.PERMISSION_DENIED},
    # The one of before may not have ended.
    "name": {grpc.StatusCode.ALREADY_EXISTS},
    "commandName": {grpc.StatusCode.FAILED_PRECONDITION},
    "Arguments": {grpc.StatusCode.FAILED_PRECONDITION},
    "environment": {grpc.StatusCode.FAILED_PRECONDITION},
    "rawArguments": {grpc.StatusCode.FAILED_PRECONDITION},
    "rawEnvironment": {grpc.StatusCode.FAILED_PRECONDITION},
    "rawWorkingDirectory": {grpc.StatusCode.FAILED_PRECONDITION},
    "workingDirectory": {grpc.StatusCode.FAILED_PRECONDITION},
    "memoryBytes": {grpc.StatusCode.FAILED_PRECONDITION},
    "cpus": {grpc.StatusCode.FAILED_PRECONDITION},
    "processes": {grpc.StatusCode.FAILED_PRECONDITION},
    "ioWeight": {grpc.StatusCode.FAILED_PRECONDITION},
    "isolation": {grpc.StatusCode.FAILED_PRECONDITION},
    "noNetwork": {grpc.StatusCode.FAILED_PRECONDITION},
    "rows": {grpc.StatusCode.FAILED_PRECONDITION},
    "columns": {grpc.StatusCode.FAILED_PRECONDITION},
    "kind": {grpc.StatusCode.FAILED_PRECONDITION},
    "port": {grpc.StatusCode.FAILED_PRECONDITION},
    "path": {grpc.StatusCode.FAILED_PRECONDITION},
    "Put.name": {grpc.StatusCode.FAILED_PRECONDITION},
    "Put.size": {grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED},
    "Put.sha256": {grpc.StatusCode.ABORTED},
    "Put.data": {grpc.StatusCode.ABORTED},
    "Put.end": {grpc.StatusCode.ABORTED},
    "AddSchedule.replace": {grpc.StatusCode.ALREADY_EXISTS},
    "ChangeSchedule.name": {grpc.StatusCode.NOT_FOUND},
    "ChangeSchedule.owner": {grpc.StatusCode.NOT_FOUND},
    # This server has nothing that signs.
    **{
        f"RenewCertificate.{field}": {grpc.StatusCode.FAILED_PRECONDITION}
        for field in ("request", "certificate", "proof")
    },
}
# Where Put and Get have theirs.
FILES = TemporaryDirectory()
# Values that some code may trip over.
_TEXTS = ["", "a", "\0", "é\u2028\U0001f600", "../..", "x" * 100_000, "-", " ", "0" * 36]
_WHOLE = {
    FieldDescriptor.TYPE_INT32: [0, 1, -1, 65, 100_000, 2**31 - 1, -(2**31)],
    FieldDescriptor.TYPE_INT64: [0, 1, -1, 2**62, 2**63 - 1, -(2**63)],
    FieldDescriptor.TYPE_UINT32: [0, 1, 2**31, 2**32 - 1],
    FieldDescriptor.TYPE_UINT64: [0, 1, 2**31, 2**62, 2**63, 2**64 - 1],
    FieldDescriptor.TYPE_ENUM: [0, 1, -1, 99, 2**31 - 1, -(2**31)],
}
_NUMBERS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e308, -1e308, 5e-324]
_NUMBERS += [float("nan"), float("inf"), -float("inf")]
_MAPS = [{}, {"A": "b"}, {"": "b"}, {"A=B": "c"}, {"A": "\0"}, {"JOBWORKER_JOB_ID": "x"}]


class Place(NamedTuple):
    """A field of a request, by its path from the top."""

    method: MethodDescriptor
    path: tuple[FieldDescriptor, ...]

    @property
    def field(self) -> FieldDescriptor:
        return self.path[-1]

    @property
    def name(self) -> str:
        """The field that an answer is to name: of a time, or a variable, it is the whole."""
        whole = ["since", "until", "endedBy", "startAt", "rawEnvironment", "uploads"]
        if self.method.name == "AddSchedule":
            whole.append("terminal")
        return next((one.name for one in self.path if one.name in whole), self.field.name)

    def __str__(self) -> str:
        return ".".join([self.method.name, *(field.name for field in self.path)])

    def put(self, request: Message, value: Any) -> None:
        """Set the field to a value."""
        message: Any = request
        if self.field.name == "rawArguments" and value:
            _start_of(message).ClearField("commandName")
        if any(field.name == "terminal" for field in self.path):
            terminal = _start_of(message).terminal
            terminal.rows, terminal.columns = 24, 80
        if any(field.name == "health" for field in self.path):
            _start_of(message).health.port = 80
        if any(field.name == "uploads" for field in self.path):
            _start_of(message).workingDirectory = FILES.name
        for field in self.path[:-1]:
            inner = getattr(request, field.name)
            request = inner.add() if field.is_repeated else inner
        if isinstance(value, list):
            del getattr(request, self.field.name)[:]
            getattr(request, self.field.name).extend(value)
        elif isinstance(value, dict):
            getattr(request, self.field.name).clear()
            getattr(request, self.field.name).update(value)
        else:
            setattr(request, self.field.name, value)


def _start_of(request: Any) -> Any:
    """What is to be started, wherever the request has it."""
    asked = getattr(request, "schedule", request)
    return getattr(asked, "start", asked)


def _places() -> Iterator[Place]:
    for method in METHODS.values():
        for path in _paths(method.input_type):
            yield Place(method, path)


def _paths(
    message: Descriptor, before: tuple[FieldDescriptor, ...] = ()
) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in message.fields:
        path = (*before, field)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            yield path
        else:
            yield from _paths(field.message_type, path)


# Without it the call would wait for ever.
PLACES = [place for place in _places() if str(place) != "Events.noFollow"]


def _edge_cases(field: FieldDescriptor) -> list[Any]:
    if field.message_type is not None:
        return list(_MAPS)
    if field.type == FieldDescriptor.TYPE_STRING:
        cases: list[Any] = list(_TEXTS)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        cases = [text.encode() for text in _TEXTS]
    elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        cases = list(_NUMBERS)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        cases = [True, False]
    else:
        cases = list(_WHOLE[field.type])
    return [[case] for case in cases] if field.is_repeated else cases


def _any_value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
    kinds: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.TYPE_STRING: st.text(max_size=70),
        FieldDescriptor.TYPE_BYTES: st.binary(max_size=70),
        FieldDescriptor.TYPE_DOUBLE: st.floats(),
        FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
        FieldDescriptor.TYPE_BOOL: st.booleans(),
        FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_ENUM: st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
        FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    }
    value = kinds[field.type]
    return st.lists(value, max_size=3) if field.is_repeated else value


def _good(worker: WorkerServiceStub, method: MethodDescriptor) -> Message:
    """A request that works, and does not wait."""
    request: Any = GetMessageClass(method.input_type)()
    names = method.input_type.fields_by_name
    if method.name == "Start":
        request.commandName = "true"
    if method.name == "Exec":
        request.start.commandName = "true"
    if method.name == "CanI":
        request.action, request.start.commandName = "start", "true"
    if method.name == "AddSchedule":
        request.CopyFrom(_schedule())
    if method.name == "ChangeSchedule":
        worker.AddSchedule(_schedule())
        request.name, request.change = "s", pb.SCHEDULE_CHANGE_PAUSE
    if "jobID" in names:
        request.jobID = _job(worker, method.name)
    if method.name == "Signal":
        request.signal = 10
    if method.name in ("Stop", "Events"):
        setattr(request, {"Stop": "noWait", "Events": "noFollow"}[method.name], True)
    if method.name == "Prune":
        request.owner = "nobody"
    _name_file(request)
    return request  # type: ignore[no-any-return]


def _name_file(request: Any) -> None:
    if isinstance(request, pb.PutRequest | pb.GetRequest):
        request.path = b"file"
    if isinstance(request, pb.PutRequest):
        request.name, request.sha256, request.end = b"file", sha256(b"").hexdigest(), True


def _schedule() -> pb.AddScheduleRequest:
    runs = pb.StartRequest(commandName="true")
    schedule = pb.Schedule(name="s", cron="0 0 1 1 *", start=runs)
    return pb.AddScheduleRequest(schedule=schedule, replace=True)


def _job(worker: WorkerServiceStub, method: str) -> str:
    if method in ("Stop", "Signal", "Pause", "Resume", "Exec"):
        return start(worker, "sleep", "100", graceSeconds=0.01)
    if method == "Input":
        return start(worker, "cat", input=pb.INPUT_MODE_OPEN, graceSeconds=0.01)
    directory = {"workingDirectory": FILES.name} if method in ("Put", "Get") else {}
    job_id = start(worker, "sh", "-c", "echo one; echo two | tee file", **directory)
    wait(worker, job_id)
    return job_id


class Answer(NamedTuple):
    """How a call ended: in which words, and which field they are about."""

    code: grpc.StatusCode
    words: str
    fields: list[str]


def _ask(call: Callable[[], Any], streams: bool) -> Answer:
    try:
        answer = call()
        if streams:
            list(answer)
    except grpc.RpcError as error:
        return Answer(error.code(), error.details() or "", list(_violations(error)))
    return Answer(OK, "", [])


def _violations(error: Any) -> Iterator[str]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                found = BadRequest()
                if detail.Unpack(found):
                    yield from (one.field for one in found.field_violations)


def _check(worker: WorkerServiceStub, place: Place, value: Any) -> None:
    """Ask with this value in this place."""
    request = _good(worker, place.method)
    if place.method.name == "CanI" and place.path[0].name == "jobID":
        request.action = "status"  # type: ignore[attr-defined]
    place.put(request, value)
    call = getattr(worker, place.method.name)
    answer = _ask(
        lambda: call(iter([request]) if place.method.client_streaming else request, timeout=60),
        place.method.server_streaming,
    )
    name = place.name
    if answer.code is INVALID:
        names = {name}
        if str(place).startswith("Exec.start."):
            # What runs within a job is not started again, nor later, however that is asked for.
            names |= {"restart", "queue"}
        assert any(one in answer.words for one in names), answer
        assert any(field.split(".")[-1] in names for field in answer.fields), answer
    else:
        assert answer.code in {OK, *ALSO.get(name, set()), *ALSO.get(str(place), set())}, (
            answer,
            value,
        )


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as stub:
        yield stub


@pytest.fixture(autouse=True)
def quiet(server: Server) -> Iterator[None]:
    """No test leaves a traceback in the server's log."""
    before = len(server.log)
    yield
    log = server.log[before:]
    assert not [line for line in log if "Traceback" in line], "\n".join(log)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_code_may_trip_over(worker: WorkerServiceStub, place: Place) -> None:
    """Unknown enum values, times out of range, NaN and 1e308 ended as UNKNOWN, with a traceback."""
    for value in _edge_cases(place.field):
        _check(worker, place, value)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_anything(worker: WorkerServiceStub, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(PLACES))
    _check(worker, place, data.draw(_any_value(place.field)))


def test_what_is_no_message(server: Server, worker: WorkerServiceStub) -> None:
    """It ended as UNKNOWN."""
    rubbish = random.Random(4)
    with channel_of(server, "alice") as channel:
        for method in METHODS.values():
            path = f"/{method.containing_service.full_name}/{method.name}"
            make: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
            if method.client_streaming:
                make = channel.stream_stream
            for request in (b"\x0a\x02\xff\xff", b"\x0a\xff", rubbish.randbytes(50)):
                if _parses(method, request):
                    continue
                call = make(path, None, None)
                sent = iter([request]) if method.client_streaming else request
                answer = _ask(partial(call, sent), streams=method.server_streaming)
                assert answer.code is INVALID, (method.name, answer)


def _parses(method: MethodDescriptor, request: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(request)
    except Exception:  # noqa: BLE001 - whatever it raises, it is no message
        return False
    return True


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (pb.OutputLimit(rate=1), "a rate of output of 1 bytes a second is not between 4096 and"),
        (pb.OutputLimit(bytes=1), "an output limit of 1 bytes is not between 4096 and"),
    ],
)
def test_a_rate_is_refused_as_a_rate(
    worker: WorkerServiceStub, limit: pb.OutputLimit, words: str
) -> None:
    """`outputLimit.rate: 1` was refused in words about the limit's bytes."""
    request = pb.StartRequest(commandName="true", outputLimit=limit)
    answer = _ask(lambda: worker.Start(request), streams=False)
    assert (answer.code, answer.words[: len(words)]) == (INVALID, words)
