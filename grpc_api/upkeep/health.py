"""The server's health (grpc.health.v1): whether it serves, and with its newest files.

The service "" serves as long as there is an answer; "policy" and "tls" do not
while the files last seen are refused and those before are still in force, nor
"audit" while the audit log cannot be written, nor "supervisor", and with it the
contract's own name, while the supervisor does not answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Never

from grpc_health.v1.health import aio  # type: ignore[attr-defined] # not in grpc-stubs
from grpc_health.v1.health_pb2 import HealthCheckResponse

from jobworker.grpc_api.guard.rules import SERVICE
from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import SupervisorClient, SupervisorError

log = logging.getLogger(__name__)

PARTS = ("policy", "tls", "audit", "supervisor")
# A supervisor that is replaced is away for less.
_ANSWER_SECONDS = 3.0
_LOOK_SECONDS = 2.0


class Health(aio.HealthServicer):  # type: ignore[misc] # not in grpc-stubs
    """Answers Check and Watch; any authenticated client may ask."""

    def __init__(self) -> None:
        super().__init__()
        # Whether each part serves.
        self.parts: dict[str, bool] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Set every part as it is after the start: with a part that is wrong there is none."""
        for part in PARTS:
            await self.tell(part, None)

    async def tell(self, part: str, error: str | None) -> None:
        """Note what is wrong with the newest files of a part, None for nothing."""
        self.parts[part] = error is None
        serves = HealthCheckResponse.SERVING if error is None else HealthCheckResponse.NOT_SERVING
        await self.set(part, serves)
        if part == "supervisor":
            await self.set(SERVICE, serves)

    def tell_soon(self, part: str, error: str | None) -> None:
        """Do as `tell`, for callers that cannot wait."""
        task = asyncio.get_running_loop().create_task(self.tell(part, error))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


async def watch_supervisor(
    supervisor: SupervisorClient, tell: Callable[[str, str | None], Awaitable[None]]
) -> Never:
    """Tell health ("supervisor") whether the supervisor answers, until cancelled."""
    before: str | None = None
    while True:
        error = await _why_silent(supervisor)
        if error != before:
            await tell("supervisor", error)
            if error is not None:
                log.error("%s", error)
            else:
                log.info("the supervisor answers again")
        before = error
        await asyncio.sleep(_LOOK_SECONDS)


async def _why_silent(supervisor: SupervisorClient) -> str | None:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await supervisor.list(ipc.List(limit=1))
    except TimeoutError:
        return f"the supervisor does not answer within {_ANSWER_SECONDS:g} s"
    except SupervisorError as error:
        return f"the supervisor does not answer: {error}"
    return None
