"""How many streams of events there may be, of all users and of each, and how one is sent."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import grpc
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobworker.console.errors import http_status
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.guard import unless_stalled
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.supervisor import SupervisorError

# Gives the pieces of an answer within its block.
Opening = AbstractAsyncContextManager[AsyncIterator[bytes]]

# A browser opens six connections to a host (HTTP/1.1), and a page that is not looked at
# closes its stream.
PER_USER = 32
IN_ALL = 512
# How often a list is looked at, and what each stream may have of a processor, about.
LOOK_SECONDS = 1.0
LOOK_SECONDS_EACH = 0.02
# What comes at least so often keeps what lies between from ending the connection.
BEAT_SECONDS = 15.0


class Streams:
    """Counts the streams that are open; `closing` is set when the front ends.

    A reader of one that takes nothing for `stall_seconds` is cut.
    """

    def __init__(self, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self.closing = asyncio.Event()
        self._open: Counter[str] = Counter()

    @property
    def look_seconds(self) -> float:
        """How often a stream may look for what is new: the more there are, the more rarely."""
        return max(LOOK_SECONDS, LOOK_SECONDS_EACH * self._open.total())

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """Count a user's stream for the block. Raises Refusal when there are too many."""
        name = caller.identity.common_name
        if self._open[name] >= PER_USER or self._open.total() >= IN_ALL:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "STREAMS",
                "too many pages are live: this one shows how things were when it was opened",
            )
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            self._open += Counter()

    async def pause(self, seconds: float) -> bool:
        """Wait so long; whether it is worth going on after that."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            return True
        return False


def event(kind: str, data: Any, number: int | None = None) -> bytes:
    """One event; browsers that connect anew say the last `number` (HTML, 9.2)."""
    # JSON has no line breaks.
    lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
    if number is not None:
        lines.insert(0, f"id: {number}")
    return ("\n".join(lines) + "\n\n").encode()


BEAT = b": still here\n\n"


class Sent(Response):
    """An answer in pieces, made and sent in one task, which ends when the reader has gone.

    `opening` gives them, and may raise wherever its block waits. What it raises before the
    first piece ends in a page of its own; later, `last_words` of it are the last piece,
    or, where there are none, the answer is cut short.
    """

    def __init__(self, opening: Opening, headers: Mapping[str, str], stall_seconds: float) -> None:
        super().__init__(status_code=200, headers=headers)
        self._stall_seconds = stall_seconds
        # Of unknown length.
        del self.headers["content-length"]
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        del scope
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait([sending, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    def last_words(self, error: Refusal | SupervisorError) -> bytes:
        """The last piece when it ends with an error."""
        del error
        return b""

    async def _send(self, send: Send) -> None:
        begun = False

        async def give(piece: bytes, *, more: bool = True) -> None:
            nonlocal begun
            if not begun:
                begun = True
                status, headers = self.status_code, self.raw_headers
                await send({"type": "http.response.start", "status": status, "headers": headers})
            async with unless_stalled(self._stall_seconds):
                await send({"type": "http.response.body", "body": piece, "more_body": more})

        try:
            async with self._opening as pieces:
                async for piece in pieces:
                    await give(piece)
        except (Refusal, SupervisorError) as error:
            if not begun:
                raise
            if words := self.last_words(error):
                await give(words, more=False)
            return
        await give(b"", more=False)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Events(Sent):
    """A stream of server-sent events."""

    def __init__(self, opening: Opening, stall_seconds: float) -> None:
        super().__init__(opening, {"content-type": "text/event-stream"}, stall_seconds)

    def last_words(self, error: Refusal | SupervisorError) -> bytes:
        """Why there are no more; the browser asks again only where that may help."""
        again = http_status(error) >= 500
        return event("over", {"words": str(error), "again": again})
