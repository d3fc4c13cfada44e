"""From what went wrong to what a caller is told: a gRPC status with google.rpc details."""

import errno
from typing import Any, NamedTuple, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from jobworker.supervisor import (
    AlreadyEnded,
    CannotExecute,
    CannotPlace,
    Drained,
    Exhausted,
    FileBusy,
    FileChanged,
    FileRefused,
    InvalidRequest,
    KeyTaken,
    NameTaken,
    NoInput,
    NoSuchFile,
    NoSuchJob,
    NoSuchSchedule,
    NothingListens,
    NotRunning,
    QuotaReached,
    ShuttingDown,
    StateError,
    StillRunning,
    SupervisorBug,
    SupervisorError,
    SupervisorUnavailable,
)

DOMAIN = "jobworker"
_DETAILS = "grpc-status-details-bin"


class Refusal(Exception):
    """A request is refused with this status code; `reason` is a constant for programs.

    `field` is the field of the request that is wrong, if it is one.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.field = field


def invalid(field: str, problem: str) -> Refusal:
    """The refusal of a request for what it has in a field, by its name in the contract."""
    return Refusal(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", f"{problem} ({field})", field
    )


# Fields of ipc.proto that the contract has under a name that is not theirs in camel case.
_CONTRACT_NAMES = {"before": "pageToken", "id": "jobID", "limit": "pageSize"}


# Exact bytes, which the supervisor is told -> what most requests have in their place.
_TEXTS = {
    "rawArguments.0": "commandName",
    "rawArguments": "Arguments",
    "rawWorkingDirectory": "workingDirectory",
    "rawEnvironment": "environment",
}


def contract_name(field: str, request: Any = None) -> str:
    """A field that the supervisor found wrong, as it is called where the caller has put it.

    Of a start it is the contract's already; else ipc.proto's: `ended_by` is
    `endedBy`. `request` is the one that came, if it is there.
    """
    if field in _TEXTS:
        raw = field.partition(".")[0]
        # CanI asks about a Start.
        asked = getattr(request, "schedule", request)
        return raw if getattr(getattr(asked, "start", asked), raw, None) else _TEXTS[field]
    if field in _CONTRACT_NAMES:
        return _CONTRACT_NAMES[field]
    first, *rest = field.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class _Row(NamedTuple):
    code: grpc.StatusCode
    reason: str


TABLE: dict[type[SupervisorError], _Row] = {
    InvalidRequest: _Row(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    KeyTaken: _Row(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_TAKEN"),
    NameTaken: _Row(grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN"),
    NoSuchSchedule: _Row(grpc.StatusCode.NOT_FOUND, "NO_SUCH_SCHEDULE"),
    NoSuchJob: _Row(grpc.StatusCode.NOT_FOUND, "NO_SUCH_JOB"),
    CannotExecute: _Row(grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_EXECUTE"),
    CannotPlace: _Row(grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_PLACE"),
    AlreadyEnded: _Row(grpc.StatusCode.FAILED_PRECONDITION, "ALREADY_ENDED"),
    NoInput: _Row(grpc.StatusCode.FAILED_PRECONDITION, "NO_INPUT"),
    NotRunning: _Row(grpc.StatusCode.FAILED_PRECONDITION, "NOT_RUNNING"),
    NothingListens: _Row(grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_LISTENS"),
    NoSuchFile: _Row(grpc.StatusCode.FAILED_PRECONDITION, "NO_SUCH_FILE"),
    FileRefused: _Row(grpc.StatusCode.FAILED_PRECONDITION, "FILE_REFUSED"),
    FileChanged: _Row(grpc.StatusCode.ABORTED, "FILE_CHANGED"),
    FileBusy: _Row(grpc.StatusCode.ABORTED, "FILE_BUSY"),
    StillRunning: _Row(grpc.StatusCode.FAILED_PRECONDITION, "STILL_RUNNING"),
    QuotaReached: _Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REACHED"),
    Exhausted: _Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "HOST_EXHAUSTED"),
    Drained: _Row(grpc.StatusCode.FAILED_PRECONDITION, "DRAINED"),
    ShuttingDown: _Row(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    SupervisorUnavailable: _Row(grpc.StatusCode.UNAVAILABLE, "SUPERVISOR_UNAVAILABLE"),
    StateError: _Row(grpc.StatusCode.INTERNAL, "STATE"),
    SupervisorBug: _Row(grpc.StatusCode.INTERNAL, "BUG"),
}


def code_of(error: Refusal | SupervisorError) -> grpc.StatusCode:
    """The status code that tells of an error."""
    return error.code if isinstance(error, Refusal) else TABLE[type(error)].code


async def refuse(
    context: "grpc.aio.ServicerContext[object, object]",
    error: Refusal | SupervisorError,
    request: Any = None,
) -> NoReturn:
    """End the call with the status for the error that the request has led to."""
    metadata: dict[str, str] = {}
    if isinstance(error, InvalidRequest) and error.field:
        error = invalid(contract_name(error.field, request), str(error))
    if isinstance(error, Refusal):
        code, reason = error.code, error.reason
    else:
        code, reason = TABLE[type(error)]
        # A command ends with 126 or 127 for it, as a shell does for a program.
        if isinstance(error, CannotExecute) and error.program:
            metadata["errno"] = errno.errorcode.get(error.errno, str(error.errno))
        if isinstance(error, QuotaReached):
            metadata["quota"] = error.quota
    details = AnyMessage()
    details.Pack(ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    status = Status(code=code.value[0], message=str(error), details=[details])
    if isinstance(error, Refusal) and error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=str(error))
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    await context.abort(code, str(error), ((_DETAILS, status.SerializeToString()),))
    raise AssertionError("abort raises")
