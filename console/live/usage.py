"""Who uses what, as it changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from jobworker.console.pages.usage import Row, sums
from jobworker.console.site import Site
from jobworker.console.streams import BEAT, BEAT_SECONDS, Events, event
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb


async def usage(site: Site, request: Request, caller: Caller) -> Response:
    """The rows of the page, and again whenever they are others."""
    del request

    @asynccontextmanager
    async def opening() -> AsyncIterator[AsyncIterator[bytes]]:
        with site.streams.one(caller):
            async with site.calls.within("List", pb.ListRequest(), caller):
                yield _changes()

    async def _changes() -> AsyncIterator[bytes]:
        told: list[Row] | None = None
        quiet = 0.0
        while True:
            rows, _ = await sums(site, caller)
            if rows != told:
                told, quiet = rows, 0.0
                yield event("usage", rows)
            elif quiet >= BEAT_SECONDS:
                quiet = 0.0
                yield BEAT
            # Each look measures all jobs.
            seconds = 2 * site.streams.look_seconds
            if not await site.streams.pause(seconds):
                return
            quiet += seconds

    return Events(opening(), site.streams.stall_seconds)
