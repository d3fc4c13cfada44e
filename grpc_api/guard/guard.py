"""The one interceptor: authenticates and authorizes every call before its method runs."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import grpc

from jobworker.authz.identity import Identity, IdentityError
from jobworker.grpc_api.errors import TurnedAway
from jobworker.grpc_api.guard.access import Access, Verdict
from jobworker.grpc_api.guard.audit_trail import AuditTrail, Caller, Session
from jobworker.grpc_api.guard.fields import check_fields
from jobworker.grpc_api.guard.handlers import check_parsed, parsed, wrapped
from jobworker.grpc_api.guard.open_calls import OpenCalls
from jobworker.grpc_api.guard.refusal import Refusal, refuse
from jobworker.grpc_api.guard.rules import RULES, SERVICE, About, MethodRule, check_declared
from jobworker.supervisor import (
    JobSnapshot,
    SupervisorError,
)

log = logging.getLogger(__name__)

# In the initial metadata: the ID of the job that a call is about.
JOB_ID_KEY = "jobworker-job-id"


class Call(NamedTuple):
    """An authorized call: who makes it, and the job it is about, if it is about one.

    `job_id` is that job's, or the one that a job to be started is to have.
    `record` takes further decisions that the method makes, `ended` what went
    through a session that has ended; see AuditTrail.require and `session`.
    """

    caller: Caller
    job: JobSnapshot | None
    job_id: str
    record: Callable[[Verdict], None]
    ended: Callable[[Session], None]

    @property
    def identity(self) -> Identity:
        """Who makes it."""
        return self.caller.identity


_current: contextvars.ContextVar[Call] = contextvars.ContextVar("jobworker_call")


def current_call() -> Call:
    """The call being served."""
    return _current.get()


class Clients(Protocol):
    """Knows who is behind the peer names that gRPC reports; see `Edge`."""

    def identity_of(self, peer: str) -> Identity | None:
        """The verified identity, None for a name that nobody registered.

        Raises IdentityError for a good certificate that names no identity,
        TurnedAway for a client with too many connections.
        """

    def address_of(self, peer: str) -> str:
        """The client's host:port."""


_Context = grpc.aio.ServicerContext[Any, Any]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in the stubs only
    """Wraps every method's behaviour; raises UndeclaredMethod on construction."""

    def __init__(
        self,
        clients: Clients,
        access: Access,
        trail: AuditTrail,
        *,
        rules: dict[str, MethodRule] = RULES,
        stall_seconds: float = 60.0,
    ) -> None:
        """A reader that takes nothing of a stream for `stall_seconds` is cut."""
        check_declared(rules)
        self._stall_seconds = stall_seconds
        self._clients = clients
        self._trail = trail
        self._access = access
        self._rules = rules
        self._open = OpenCalls()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any]"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Put the guard before the method (grpc.aio.ServerInterceptor)."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        service, _, method = handler_call_details.method.removeprefix("/").partition("/")
        if service != SERVICE:
            other = self._guard_reflection if handler.request_streaming else self._guard_other
            return wrapped(handler, other)
        guard = self._guard_unary
        if handler.request_streaming:
            guard = self._guard_both_ways
        elif handler.response_streaming:
            guard = self._guard_stream
        return wrapped(handler, partial(guard, method))

    def review(self) -> None:
        """Decide the open calls by the policy now in force, and end those it refuses."""
        for caller, verdict in self._open.review(self._access.judge_found):
            log.info("ended a call: %s", verdict.error)
            self._trail.note(caller, verdict)

    async def finish(self, seconds: float) -> None:
        """End the calls that wait for something, and the others if they take so long.

        They end as a client repeats them, with UNAVAILABLE.
        """
        await self._open.finish(_ENDING, seconds)

    def _guard_other(self, behaviour: Any) -> Any:
        """Authenticate alone, for services that tell nothing of any job, such as health."""

        async def guarded(request: Any, context: _Context) -> Any:
            try:
                self._authenticate(context)
                check_parsed(request)
                async with self._open.serving(lasting=True):
                    return await behaviour(request, context)
            except Refusal as error:
                await refuse(context, error)

        return guarded

    def _guard_reflection(self, behaviour: Any) -> Any:
        """Let those ask what the contract is who may do something that is in it."""

        async def guarded(requests: AsyncIterator[Any], context: _Context) -> None:
            try:
                caller = self._authenticate(context)
                verdict = self._access.judge_anything(caller.identity, "reflect")
                self._trail.require(caller, verdict)
                if verdict.error is not None:
                    raise verdict.error
                async with (
                    self._open.serving(lasting=True),
                    aclosing(behaviour(parsed(requests), context)) as responses,
                ):
                    async for response in responses:
                        await self._deliver(response, context)
            except Refusal as error:
                await refuse(context, error)

        return guarded

    def _guard_unary(self, method: str, behaviour: Any) -> Any:
        async def guarded(request: Any, context: _Context) -> Any:
            try:
                async with self._authorized(method, request, context):
                    return await behaviour(request, context)
            except (Refusal, SupervisorError) as error:
                await refuse(context, error, request)

        return guarded

    def _guard_stream(self, method: str, behaviour: Any) -> Any:
        async def guarded(request: Any, context: _Context) -> None:
            try:
                async with (
                    self._authorized(method, request, context),
                    aclosing(behaviour(request, context)) as responses,
                ):
                    async for response in responses:
                        await self._deliver(response, context)
            except (Refusal, SupervisorError) as error:
                await refuse(context, error, request)

        return guarded

    def _guard_both_ways(self, method: str, behaviour: Any) -> Any:
        """Decide by the first request, which names the job; the others are about that one."""

        async def guarded(requests: AsyncIterator[Any], context: _Context) -> None:
            first = None
            patient = self._rules[method].patient
            deliver = context.write if patient else partial(self._deliver, context=context)
            try:
                rest = parsed(requests)
                first = await self._first(rest)
                async with (
                    self._authorized(method, first, context),
                    aclosing(behaviour(first, rest)) as responses,
                ):
                    async for response in responses:
                        await deliver(response)
            except (Refusal, SupervisorError) as error:
                await refuse(context, error, first)

        return guarded

    async def _first(self, requests: AsyncIterator[Any]) -> Any:
        async with unless_stalled(self._stall_seconds):
            async for request in requests:
                return request
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "the call has no request"
        )

    async def _deliver(self, response: Any, context: _Context) -> None:
        """Write a response. Raises Refusal when the reader takes nothing for too long."""
        async with unless_stalled(self._stall_seconds):
            await context.write(response)

    @asynccontextmanager
    async def _authorized(
        self, method: str, request: Any, context: _Context
    ) -> AsyncIterator[None]:
        """Serve within the block, if the caller may. Raises Refusal, also later: see `review`."""
        async with self.authorized(method, request, self._authenticate(context)) as call:
            if call.job is not None and call.job_id != request.jobID:
                # Who asks again is to ask about the same one.
                await context.send_initial_metadata(((JOB_ID_KEY, call.job_id),))
            yield

    @asynccontextmanager
    async def authorized(self, method: str, request: Any, caller: Caller) -> AsyncIterator[Call]:
        """Serve an authenticated caller within the block, if they may call the method.

        `current_call` is theirs there.

        Raises Refusal and NoSuchJob; also later, wherever the block waits, when
        a new policy refuses it (see `review`) or the front ends (see `finish`).
        """
        rule = self._rules[method]
        async with self._open.serving(lasting=rule.lasting) as served:
            check_parsed(request)
            call = await self._authorize(rule, request, caller)
            check_fields(request)
            served.caller, served.action, served.job = caller, rule.action, call.job
            _current.set(call)
            yield call

    async def _authorize(self, rule: MethodRule, request: Any, caller: Caller) -> Call:
        record = partial(self._trail.require, caller)
        ended = partial(self._trail.session, caller)
        match rule.about:
            case About.ONESELF:
                return Call(caller, None, "", record, ended)
            case About.ONE_JOB:
                verdict = await self._access.judge(caller.identity, rule.action, request.jobID)
            case About.NEW_JOB:
                job_id = await self._access.supervisor.new_id()
                verdict = self._access.judge_start(caller.identity, request, job_id)
            case About.EACH_JOB:
                verdict = self._access.each_job(rule.action)
        record(verdict)
        if verdict.error is not None:
            raise verdict.error
        return Call(caller, verdict.job, verdict.job_id, record, ended)

    def _authenticate(self, context: _Context) -> Caller:
        return caller_behind(self._clients, context.peer())


def caller_behind(clients: Clients, peer: str) -> Caller:
    """Who is behind a peer name of the edge's. Raises Refusal where that is nobody."""
    try:
        identity = clients.identity_of(peer)
    except (IdentityError, TurnedAway) as error:
        raise unknown_client(error) from error
    if identity is None:
        raise _unauthenticated("the connection did not come through the TLS edge")
    return Caller(identity, clients.address_of(peer))


@asynccontextmanager
async def unless_stalled(seconds: float) -> AsyncIterator[None]:
    """Give the reader of a stream so long for the block. Raises Refusal when it took nothing."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        log.warning("cut a reader that took nothing for %g s", seconds)
        raise Refusal(
            grpc.StatusCode.ABORTED,
            "READER_STALLED",
            f"nothing was read for {seconds:g} s: ask again from the offset that was reached",
        ) from None


def unknown_client(error: IdentityError | TurnedAway) -> Refusal:
    """The refusal of a client whose certificate names nobody, or that is one too many."""
    if isinstance(error, TurnedAway):
        return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "CONNECTIONS", str(error))
    return _unauthenticated(str(error))


_ENDING = Refusal(
    grpc.StatusCode.UNAVAILABLE,
    "FRONT_ENDING",
    "this part of the server makes way for another: call again",
)


def _unauthenticated(reason: str) -> Refusal:
    return Refusal(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", reason)
