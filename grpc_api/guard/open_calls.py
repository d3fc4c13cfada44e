"""The calls being served, for whoever must end them: when refused now, or when the front ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jobworker.authz.identity import Identity
from jobworker.grpc_api.guard.access import Verdict
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.supervisor import (
    JobSnapshot,
)

Judge = Callable[[Identity, str, JobSnapshot], Verdict]


@dataclass(eq=False)
class OpenCall:
    """A call that is being served, and as what it was allowed.

    `lasting` calls wait for something, such as a job's end. `job` is None as
    long as it is not about one. `error` is what it is to end with, once that is known.
    """

    limit: asyncio.Timeout
    lasting: bool
    caller: Caller | None = None
    action: str = ""
    job: JobSnapshot | None = None
    error: Exception | None = None

    def end(self, error: Exception) -> None:
        """Have it end with this, wherever it waits, unless it is to end with another."""
        if self.error is None:
            self.error = error
            self.limit.reschedule(asyncio.get_running_loop().time())


class OpenCalls:
    """Every call is in here as long as its block runs."""

    def __init__(self) -> None:
        self._calls: set[OpenCall] = set()
        # What calls end with from here on: the lasting ones, and all of them.
        self._ending: Exception | None = None
        self._over = False
        # Set when a call ends.
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def serving(self, *, lasting: bool = False) -> AsyncIterator[OpenCall]:
        """Have the block ended by an error, wherever it waits, when one is due.

        Raises what `review` or `finish` found.
        """
        # A timeout that is not set until then: it cancels what the task waits
        # for, and tells that apart from the client's own cancelling.
        call = OpenCall(asyncio.timeout(None), lasting)
        self._calls.add(call)
        try:
            async with call.limit:
                if self._ending is not None and (lasting or self._over):
                    call.end(self._ending)
                yield call
        except TimeoutError:
            if call.error is None:
                raise
            raise call.error from None
        finally:
            self._calls.discard(call)
            self._ended.set()

    def review(self, judge: Judge) -> Iterator[tuple[Caller, Verdict]]:
        """Judge every call about a job anew; end, and yield, those that are refused now."""
        for call in list(self._calls):
            if call.caller is None or call.job is None or call.error is not None:
                continue
            verdict = judge(call.caller.identity, call.action, call.job)
            if verdict.error is not None:
                call.end(verdict.error)
                yield call.caller, verdict

    async def finish(self, error: Exception, seconds: float) -> None:
        """End the lasting calls with an error, and the others if they take longer than that."""
        self._ending = error
        for call in self._calls:
            if call.lasting:
                call.end(error)
        try:
            async with asyncio.timeout(seconds):
                while self._calls:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            self._over = True
            for call in self._calls:
                call.end(error)
