"""From what went wrong to what a browser is told: a status of HTTP, and a sentence."""

from http import HTTPStatus

import grpc

from jobworker.grpc_api.guard.refusal import Refusal, code_of
from jobworker.supervisor import SupervisorError

_STATUS = {
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    # 401 would have browsers ask for a password.
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def http_status(error: Refusal | SupervisorError) -> HTTPStatus:
    """The status that tells of an error."""
    return _STATUS.get(code_of(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def invalid_form(problem: str) -> Refusal:
    """The refusal of what was filled in."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FORM", problem)
