"""A job's terminal in a browser: what it shows goes down a WebSocket, what is typed comes up.

The page first says its token, its size and with whom it types (text). From then on binary
messages are the terminal's bytes, either way; texts are JSON: `size` and `shown` of the
page, the bytes that it has drawn; `live` of the server, once what comes is new, and
`over`, its last words.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.websockets import WebSocket, WebSocketDisconnect

from jobworker.console.errors import http_status, invalid_form
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.guard import unless_stalled
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import SupervisorError

SHARINGS = {
    "alone": pb.INPUT_SHARING_ALONE,
    "over": pb.INPUT_SHARING_TAKE_OVER,
    "shared": pb.INPUT_SHARING_SHARED,
}
# What was last shown comes first, so that there is something to look at.
_TAIL_BYTES = 16 * 1024
# So much goes down ahead of what the page has drawn: a browser takes whatever comes.
_AHEAD_BYTES = 256 * 1024
# So much of what is typed may wait for the job to take it.
_MOST_TYPED = 1024 * 1024
_MOST_SIZE = 1000
_FIRST_SECONDS = 20.0
# RFC 6455, 7.4.2: those above 4000 are one's own.
_REFUSED = 4000


class _Wanted(NamedTuple):
    """What the page says first."""

    token: str
    rows: int
    columns: int
    sharing: str

    @classmethod
    def of(cls, text: str) -> "_Wanted":
        """What a message says. Raises Refusal."""
        told = _told(text)
        token, sharing = told.get("token"), told.get("sharing")
        if not isinstance(token, str) or sharing not in SHARINGS:
            raise invalid_form("this is no terminal's beginning: use the page's own")
        return cls(token, *_size(told), sharing)


async def terminal(site: Site, socket: WebSocket) -> None:
    """Serve one page's terminal, as long as the job, the page and the right to both last."""
    await socket.accept()
    try:
        await _serve(site, socket)
        last: dict[str, Any] = {"words": "the job has ended", "again": False, "used": False}
    except (Refusal, SupervisorError) as error:
        last = {
            "words": str(error),
            "again": http_status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR,
            "used": getattr(error, "reason", "") in {"INPUT_IN_USE", "INPUT_TAKEN_OVER"},
        }
    except WebSocketDisconnect:
        return
    with suppress(WebSocketDisconnect, RuntimeError, Refusal):
        async with unless_stalled(site.streams.stall_seconds):
            await socket.send_text(json.dumps({"over": last}))
            await socket.close(_REFUSED)


async def _serve(site: Site, socket: WebSocket) -> None:
    """Raise Refusal, SupervisorError and WebSocketDisconnect; return when the job has ended."""
    caller = site.caller(socket)
    async with unless_stalled(_FIRST_SECONDS):
        wanted = _Wanted.of(await _text(socket))
    site.check_token(socket, wanted.token, caller)
    with site.streams.one(caller):
        session = _Session(site, socket, caller, wanted)
        try:
            async with asyncio.TaskGroup() as group:
                heard = group.create_task(session.hear())
                typed = group.create_task(session.type())
                await session.show()
                heard.cancel()
                typed.cancel()
        except ExceptionGroup as errors:
            raise _reason(errors) from None


def _reason(errors: ExceptionGroup[Exception]) -> Exception:
    """A fault, if there is one; else what says why; that the page has gone may follow from it."""
    expected = (Refusal, SupervisorError, WebSocketDisconnect)
    faults = [error for error in errors.exceptions if not isinstance(error, expected)]
    reasons = [error for error in errors.exceptions if not isinstance(error, WebSocketDisconnect)]
    return [*faults, *reasons, *errors.exceptions][0]


class _Session:
    """One page's terminal. What is shown and what is typed are decided as calls of their own."""

    def __init__(self, site: Site, socket: WebSocket, caller: Caller, wanted: _Wanted) -> None:
        self._site = site
        self._socket = socket
        self._caller = caller
        self._wanted = wanted
        self._id: str = socket.path_params["job"]
        self._typed: asyncio.Queue[pb.InputRequest] = asyncio.Queue()
        self._waiting = 0
        self._sent = self._shown = 0
        self._drawn = asyncio.Event()

    async def hear(self) -> None:
        """Take what the page says. Raises WebSocketDisconnect and Refusal."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            if data := message.get("bytes"):
                self._waiting += len(data)
                if self._waiting > _MOST_TYPED:
                    raise invalid_form("the job does not take what is typed")
                self._typed.put_nowait(pb.InputRequest(data=data))
            else:
                self._note(_told(message.get("text") or ""))

    def _note(self, told: dict[str, Any]) -> None:
        if isinstance(shown := told.get("shown"), int):
            self._shown = max(self._shown, min(shown, self._sent))
            self._drawn.set()
        if "rows" in told:
            rows, columns = _size(told)
            self._typed.put_nowait(_resized(rows, columns))

    async def type(self) -> None:
        """Send the job what is typed."""
        sharing = SHARINGS[self._wanted.sharing]
        first = pb.InputRequest(jobID=self._id, sharing=sharing)
        async with self._site.calls.input(first, self._requests(), self._caller) as answers:
            async for answer in answers:
                if answer.over:
                    return

    async def _requests(self) -> AsyncIterator[pb.InputRequest]:
        # That a page goes is no disconnection: it has none of the keys that leave.
        yield pb.InputRequest(leave=True)
        # Another size for a moment has a program that fills the terminal show everything.
        yield _resized(self._wanted.rows, self._wanted.columns + 1)
        yield _resized(self._wanted.rows, self._wanted.columns)
        while True:
            request = await self._typed.get()
            yield request
            # The next is asked for when this one has been taken.
            self._waiting -= len(request.data)

    async def show(self) -> None:
        """Send the page what the job's terminal shows, until the job has ended."""
        asked = pb.GetOutputRequest(jobID=self._id, raw=True, untilExit=True, tailBytes=_TAIL_BYTES)
        old = (await self._site.calls.access.seen(self._caller.identity, self._id)).output_end
        live = old == 0
        if live:
            await self._say(live=True)
        async with self._site.calls.output(asked, self._caller) as messages:
            async for message in messages:
                for begin in range(0, len(message.data), _AHEAD_BYTES):
                    await self._give(message.data[begin : begin + _AHEAD_BYTES])
                reached = message.offset + (message.gapBytes or len(message.data))
                if not live and reached >= old:
                    live = True
                    await self._say(live=True)

    async def _give(self, data: bytes) -> None:
        """Send bytes, when the page has drawn enough of those before."""
        async with unless_stalled(self._site.streams.stall_seconds):
            while self._sent - self._shown > _AHEAD_BYTES:
                self._drawn.clear()
                await self._drawn.wait()
            self._sent += len(data)
            await self._socket.send_bytes(data)

    async def _say(self, **told: Any) -> None:
        async with unless_stalled(self._site.streams.stall_seconds):
            await self._socket.send_text(json.dumps(told))


async def _text(socket: WebSocket) -> str:
    """The next message, empty for one that is no text. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    return message.get("text") or ""


def _told(text: str) -> dict[str, Any]:
    """A message of the page's. Raises Refusal."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_form("this is no message of the page's own") from error
    if not isinstance(told, dict):
        raise invalid_form("this is no message of the page's own")
    return told


def _size(told: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns. Raises Refusal."""
    sizes = told.get("rows"), told.get("columns")
    if not all(isinstance(one, int) and 1 <= one <= _MOST_SIZE for one in sizes):
        raise invalid_form("a terminal has 1 to 1000 rows, and as many columns")
    rows, columns = sizes
    return int(rows or 0), int(columns or 0)


def _resized(rows: int, columns: int) -> pb.InputRequest:
    return pb.InputRequest(terminal=pb.Terminal(rows=rows, columns=columns))
