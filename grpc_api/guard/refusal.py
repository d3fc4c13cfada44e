"""From what went wrong to what a caller is told: a gRPC status with google.rpc details."""

import errno
from typing import NamedTuple, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from jobworker.supervisor import (
    AlreadyEnded,
    CannotExecute,
    CannotPlace,
    Exhausted,
    InvalidRequest,
    NoSuchJob,
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
    """A request is refused with this status code; `reason` is a constant for programs."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class _Row(NamedTuple):
    code: grpc.StatusCode
    reason: str


TABLE: dict[type[SupervisorError], _Row] = {
    InvalidRequest: _Row(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    NoSuchJob: _Row(grpc.StatusCode.NOT_FOUND, "NO_SUCH_JOB"),
    CannotExecute: _Row(grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_EXECUTE"),
    CannotPlace: _Row(grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_PLACE"),
    AlreadyEnded: _Row(grpc.StatusCode.FAILED_PRECONDITION, "ALREADY_ENDED"),
    StillRunning: _Row(grpc.StatusCode.FAILED_PRECONDITION, "STILL_RUNNING"),
    QuotaReached: _Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REACHED"),
    Exhausted: _Row(grpc.StatusCode.RESOURCE_EXHAUSTED, "HOST_EXHAUSTED"),
    ShuttingDown: _Row(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    SupervisorUnavailable: _Row(grpc.StatusCode.UNAVAILABLE, "SUPERVISOR_UNAVAILABLE"),
    StateError: _Row(grpc.StatusCode.INTERNAL, "STATE"),
    SupervisorBug: _Row(grpc.StatusCode.INTERNAL, "BUG"),
}


def code_of(error: Refusal | SupervisorError) -> grpc.StatusCode:
    """The status code that tells of an error."""
    return error.code if isinstance(error, Refusal) else TABLE[type(error)].code


async def refuse(
    context: "grpc.aio.ServicerContext[object, object]", error: Refusal | SupervisorError
) -> NoReturn:
    """End the call with the status for the error."""
    metadata: dict[str, str] = {}
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
    await context.abort(code, str(error), ((_DETAILS, status.SerializeToString()),))
    raise AssertionError("abort raises")
