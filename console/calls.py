"""Calls of the contract's methods for who looks at pages: decided and counted as gRPC's are."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import grpc

from jobworker.grpc_api.guard.access import Access
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.call_counter import CallCounter
from jobworker.grpc_api.guard.guard import Call, Guard
from jobworker.grpc_api.guard.refusal import Refusal, code_of
from jobworker.grpc_api.service.service import WorkerService
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import SupervisorError

# The methods make no use of it.
_NONE = cast(Any, None)
_Answers = AsyncGenerator[pb.InputResponse, None]
_Pieces = AsyncGenerator[pb.GetOutputResponse, None]


class Calls:
    """Every decision is the guard's, before any code of a method runs."""

    def __init__(
        self, guard: Guard, access: Access, service: WorkerService, counter: CallCounter
    ) -> None:
        """`access` decides on each job of an answer."""
        self.access = access
        self._guard = guard
        self._service = service
        self._counter = counter

    async def call(self, method: str, request: Any, caller: Caller) -> Any:
        """What a method answers. Raises Refusal and SupervisorError."""
        async with self.within(method, request, caller):
            return await self.answer(method, request)

    async def answer(self, method: str, request: Any) -> Any:
        """What a method answers, within the block of `within` that is about it."""
        return await getattr(self._service, method)(request, _NONE)

    @asynccontextmanager
    async def within(self, method: str, request: Any, caller: Caller) -> AsyncIterator[Call]:
        """Count the block as one call of a method, which the caller may make.

        Raises Refusal and SupervisorError, also later: wherever the block waits, when
        the policy in force refuses it by then, or the front ends.
        """
        code = grpc.StatusCode.CANCELLED
        try:
            async with self._guard.authorized(method, request, caller) as call:
                yield call
            code = grpc.StatusCode.OK
        except (Refusal, SupervisorError) as error:
            code = code_of(error)
            raise
        finally:
            self._counter.ended[method, code.name] += 1

    @asynccontextmanager
    async def output(
        self, request: pb.GetOutputRequest, caller: Caller
    ) -> AsyncIterator[AsyncIterator[pb.GetOutputResponse]]:
        """The pieces of a job's output, within the block. Raises as `within` does."""
        async with (
            self.within("GetOutput", request, caller),
            aclosing(self.pieces(request)) as pieces,
        ):
            yield pieces

    @asynccontextmanager
    async def input(
        self, first: pb.InputRequest, rest: AsyncIterator[pb.InputRequest], caller: Caller
    ) -> AsyncIterator[AsyncIterator[pb.InputResponse]]:
        """What Input answers to messages, within the block. Raises as `within` does."""
        async with (
            self.within("Input", first, caller),
            aclosing(cast(_Answers, self._service.Input(first, rest))) as answers,
        ):
            yield answers

    def pieces(self, request: pb.GetOutputRequest) -> _Pieces:
        """What GetOutput gives, within the block of `within` that is about it."""
        return cast(_Pieces, self._service.GetOutput(request, _NONE))
