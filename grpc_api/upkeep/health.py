"""The server's health (grpc.health.v1): whether it serves, and with its newest files.

The service "" serves as long as there is an answer; "policy" and "tls" do not
while the files last seen are refused and those before are still in force, nor
"audit" while the audit log cannot be written.
"""

import asyncio

from grpc_health.v1.health import aio  # type: ignore[attr-defined] # not in grpc-stubs
from grpc_health.v1.health_pb2 import HealthCheckResponse

PARTS = ("policy", "tls", "audit")


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

    def tell_soon(self, part: str, error: str | None) -> None:
        """Do as `tell`, for callers that cannot wait."""
        task = asyncio.get_running_loop().create_task(self.tell(part, error))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
