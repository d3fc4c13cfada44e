"""Putting something before the methods of a gRPC service."""

from collections.abc import Callable
from typing import Any

import grpc


def wrapped(
    handler: "grpc.RpcMethodHandler[Any, Any]", wrap: Callable[[Any], Any]
) -> "grpc.RpcMethodHandler[Any, Any]":
    """The same method, of one request, with its behaviour as `wrap` returns it."""
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]]
    if handler.response_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
    else:
        make, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
    return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)
