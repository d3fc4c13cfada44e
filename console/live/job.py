"""One job as it changes: what there is to say of it, and its output as it comes."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from operator import ne

from starlette.requests import Request
from starlette.responses import Response

from jobworker.client.messages import read_job
from jobworker.console.pages.acts import fitting
from jobworker.console.pages.output import SHOWN_BYTES, STREAMS, Piece, asking, time_of
from jobworker.console.pages.views import facts, mood
from jobworker.console.site import Site
from jobworker.console.streams import BEAT, BEAT_SECONDS, Events, event
from jobworker.console.text import PlainText
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.service.messages import status_message
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot, State

# Who is further behind is shown the end of what there is: nobody reads more than that.
_MOST_BEHIND = 512 * 1024
# Between two events, so that a flood of lines becomes a few of them.
_GAP_SECONDS = 0.1


async def job(site: Site, request: Request, caller: Caller) -> Response:
    """Events of one job: status, usage, output and, when no more will come, end.

    `from` is the offset of the output to begin at, empty for none of it. A browser that
    connects anew says with Last-Event-ID how far it came. `times=1` has each piece of the
    output tell when it came; the page knows which lines begin in it.
    """
    job_id = request.path_params["job"]
    begin = request.headers.get("last-event-id") or request.query_params.get("from", "")
    offset = int(begin) if begin.isdecimal() and len(begin) < 19 else None

    @asynccontextmanager
    async def opening() -> AsyncIterator[AsyncIterator[bytes]]:
        async with AsyncExitStack() as stack:
            stack.enter_context(site.streams.one(caller))
            asked = pb.WaitRequest(jobID=job_id)
            call = await stack.enter_async_context(site.calls.within("Wait", asked, caller))
            if offset is not None:
                output = pb.GetOutputRequest(jobID=call.job_id)
                await stack.enter_async_context(site.calls.within("GetOutput", output, caller))
            times = request.query_params.get("times") == "1"
            watching = _Watching(site, call.job_id, offset, times=times)
            yield await stack.enter_async_context(aclosing(watching.events()))

    return Events(opening(), site.streams.stall_seconds)


class _Watching:
    """One reader of one job."""

    def __init__(self, site: Site, job_id: str, offset: int | None, *, times: bool) -> None:
        """Without an offset nothing of the output is told."""
        self._site = site
        self._id = job_id
        self._offset = offset
        self._times = times
        self._told: dict[str, str] = {}
        # When the job was measured last, by the event loop's clock.
        self._looked = -math.inf
        self._plain = {stream: PlainText() for stream in STREAMS}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """As they come. Raises NoSuchJob once the job is removed."""
        async with self._site.calls.access.supervisor.watch(self._id) as watched:
            job = await watched.until(lambda _: True)
            while True:
                for piece in self._status(job):
                    yield piece
                async for piece in self._usage(job):
                    yield piece
                async for piece in self._output(job):
                    yield piece
                if job.ended and (job.output_complete or self._offset is None):
                    yield event("end", {})
                    return
                if not await self._site.streams.pause(_GAP_SECONDS):
                    return
                try:
                    async with asyncio.timeout(self._patience(job)):
                        job = await watched.until(partial(ne, job))
                except TimeoutError:
                    if not _measured(job):
                        yield BEAT

    def _patience(self, job: JobSnapshot) -> float:
        """How long to wait for something to happen, before the job is measured again."""
        return self._site.streams.look_seconds if _measured(job) else BEAT_SECONDS

    async def _usage(self, job: JobSnapshot) -> AsyncIterator[bytes]:
        """What it uses now; the first time with what there is of before."""
        now = asyncio.get_running_loop().time()
        if not _measured(job) or now - self._looked < self._site.streams.look_seconds:
            return
        first = self._looked == -math.inf
        self._looked = now
        if (sample := await self._site.samples.watch(self._id)) is not None:
            points = self._site.samples.series(self._id) if first else [sample.point]
            yield event("usage", {"first": first, "points": points})

    def _status(self, job: JobSnapshot) -> list[bytes]:
        message = status_message(job)
        message.ClearField("usage")
        told = facts(message)
        if told == self._told:
            return []
        self._told = told
        read = read_job(message)
        status = {"facts": told, "mood": mood(read), "acts": fitting(read.state)}
        return [event("status", status)]

    async def _output(self, job: JobSnapshot) -> AsyncIterator[bytes]:
        if self._offset is None or job.output_end <= self._offset:
            return
        asked = asking(self._id, times=self._times)
        asked.offset = self._offset
        if skips := job.output_end - self._offset > _MOST_BEHIND:
            asked.ClearField("offset")
            asked.tailBytes = SHOWN_BYTES
        pieces: list[Piece] = []
        async with aclosing(self._site.calls.pieces(asked)) as messages:
            async for message in messages:
                if skips or message.gapBytes:
                    pieces.append(Piece("gap", ""))
                    skips = False
                self._offset = message.offset + (message.gapBytes or len(message.data))
                if plain := self._plain.get(message.stream):
                    text = plain.take(message.data)
                    time = time_of(message) if self._times else ""
                    pieces.append(Piece(STREAMS[message.stream], text, time))
        if pieces:
            told = [piece if piece.time else piece[:2] for piece in pieces]
            yield event("output", told, self._offset)


def _measured(job: JobSnapshot) -> bool:
    """Whether it is of a kind that uses more as time goes by."""
    return job.state is not State.PENDING and not job.ended
