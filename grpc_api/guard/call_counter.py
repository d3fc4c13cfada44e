"""Counting calls."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from jobworker.grpc_api.guard.handlers import wrapped

_Context = grpc.aio.ServicerContext[Any, Any]


class CallCounter(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in the stubs only
    """Counts the calls that ended, by method and status; to be the first of the interceptors."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()
        # Those of methods that are not there, too.
        self.begun = 0

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any]"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Have the call counted when it ends (grpc.aio.ServerInterceptor)."""
        self.begun += 1
        handler = await continuation(handler_call_details)
        if handler is None:
            # A method that is not there: its name is the client's to choose.
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        return wrapped(handler, partial(self._counted, method))

    def _counted(self, method: str, behaviour: Any) -> Any:
        # What the guard makes of every method, streaming or not, is a coroutine.
        async def counted(request: Any, context: _Context) -> Any:
            try:
                response = await behaviour(request, context)
            except asyncio.CancelledError:
                self.ended[method, "CANCELLED"] += 1
                raise
            except BaseException:
                # 0 of a method that failed before it set any.
                code = context.code()
                name = code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
                self.ended[method, name] += 1
                raise
            self.ended[method, "OK"] += 1
            return response

        return counted
