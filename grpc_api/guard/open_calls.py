"""The calls being served, for whoever must end those that are allowed no longer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jobworker.authz.identity import Identity
from jobworker.grpc_api.guard.access import Verdict
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.supervisor.ipc.snapshot import JobSnapshot

Judge = Callable[[Identity, str, JobSnapshot], Verdict]


@dataclass(eq=False)
class _OpenCall:
    """A call as it was allowed. `error` is what it is to end with, once that is known."""

    caller: Caller
    action: str
    job: JobSnapshot
    limit: asyncio.Timeout
    error: Exception | None = None


class OpenCalls:
    """Calls that may last: each is in here as long as its block runs."""

    def __init__(self) -> None:
        self._calls: set[_OpenCall] = set()

    @asynccontextmanager
    async def serving(self, caller: Caller, action: str, job: JobSnapshot) -> AsyncIterator[None]:
        """Have the block ended by a Refusal, wherever it waits, when `review` finds one due."""
        # A timeout that is not set until then: it cancels what the task waits
        # for, and tells that apart from the client's own cancelling.
        call = _OpenCall(caller, action, job, asyncio.timeout(None))
        self._calls.add(call)
        try:
            async with call.limit:
                yield
        except TimeoutError:
            if call.error is None:
                raise
            raise call.error from None
        finally:
            self._calls.discard(call)

    def review(self, judge: Judge) -> Iterator[tuple[Caller, Verdict]]:
        """Judge every call anew; end, and yield, those that are refused now."""
        now = asyncio.get_running_loop().time()
        for call in [call for call in self._calls if call.error is None]:
            verdict = judge(call.caller.identity, call.action, call.job)
            if verdict.error is not None:
                call.error = verdict.error
                call.limit.reschedule(now)
                yield call.caller, verdict
