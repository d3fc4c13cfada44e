"""A list of jobs as it changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from jobworker.console.pages.jobs import Wanted
from jobworker.console.pages.jobs import rows as rows_of
from jobworker.console.pages.views import Row
from jobworker.console.site import Site
from jobworker.console.streams import BEAT, BEAT_SECONDS, Events, event
from jobworker.grpc_api.guard.audit_trail import Caller


async def jobs(site: Site, request: Request, caller: Caller) -> Response:
    """The rows of the page of that address, and again whenever they are others.

    It is decided, and on record, once; whose jobs are in it the policy is asked each time.
    """
    asked = Wanted.of(request).message()

    @asynccontextmanager
    async def opening() -> AsyncIterator[AsyncIterator[bytes]]:
        with site.streams.one(caller):
            async with site.calls.within("List", asked, caller):
                yield _changes()

    async def _changes() -> AsyncIterator[bytes]:
        told: list[Row] | None = None
        looked: tuple[int, str] | None = None
        quiet = 0.0
        while True:
            # A job that was removed is no news.
            if (now := _known(site)) != looked or quiet >= BEAT_SECONDS:
                answer = await site.calls.answer("List", asked)
                rows = rows_of(site, caller, answer.jobs)
                looked = now
                if rows != told:
                    told, quiet = rows, 0.0
                    yield event("jobs", rows)
                elif quiet >= BEAT_SECONDS:
                    quiet = 0.0
                    yield BEAT
            seconds = site.streams.look_seconds
            if not await site.streams.pause(seconds):
                return
            quiet += seconds

    return Events(opening(), site.streams.stall_seconds)


def _known(site: Site) -> tuple[int, str]:
    """As long as this is the same, so is every list, but for jobs that were removed."""
    return site.news.version, site.calls.access.authority.version
