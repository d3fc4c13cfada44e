"""Putting something before the methods of a gRPC service."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from jobworker.grpc_api.guard.refusal import Refusal


class Malformed(NamedTuple):
    """A request that is no message of its kind, and why."""

    problem: str


def wrapped(
    handler: "grpc.RpcMethodHandler[Any, Any]", wrap: Callable[[Any], Any]
) -> "grpc.RpcMethodHandler[Any, Any]":
    """The same method with its behaviour as `wrap` returns it.

    What comes in place of a request that cannot be parsed is a Malformed: gRPC
    would end the call with UNKNOWN, and a traceback in the log.
    """
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]]
    if handler.request_streaming:
        make, behaviour = grpc.stream_stream_rpc_method_handler, handler.stream_stream
    elif handler.response_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
    else:
        make, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
    return make(
        wrap(behaviour), _lenient(handler.request_deserializer), handler.response_serializer
    )


def _lenient(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if parse is None:
        return None

    def parsed(request: bytes) -> Any:
        try:
            return parse(request)
        except DecodeError as error:
            return Malformed(str(error))

    return parsed


async def parsed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """A stream of requests. Raises Refusal at the first that is Malformed."""
    async for request in requests:
        check_parsed(request)
        yield request


def check_parsed(request: Any) -> None:
    """Raise Refusal for a Malformed."""
    if isinstance(request, Malformed):
        problem = f"the request is not the message it should be: {request.problem}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", problem)
