"""Speaking to a porter, which runs as a job's user: nothing that it says is believed unseen."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Never, Self, TypeVar

import msgspec
from msgspec import Meta

from jobworker.supervisor.errors import (
    CannotPlace,
    Exhausted,
    FileBusy,
    FileChanged,
    FileRefused,
    NoSuchFile,
    SupervisorError,
    SupervisorUnavailable,
)
from jobworker.supervisor.porter import porter

# What FAILED says -> what is raised for it.
_ERRORS: dict[str, type[SupervisorError]] = {
    porter.REFUSED: FileRefused,
    porter.MISSING: NoSuchFile,
    porter.NO_ROOM: Exhausted,
    porter.CHANGED: FileChanged,
    porter.BUSY: FileBusy,
    porter.UNABLE: CannotPlace,
}

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
# Of a message that may have a path in it: what a status may hold is bounded.
_MAX_WORDS = 2000

_T = TypeVar("_T", bound=msgspec.Struct)


class Parcel(msgspec.Struct, frozen=True):
    """A file to put: at `path`, or as `name` in it where that is a directory."""

    path: bytes
    name: bytes
    mode: int
    size: int
    sha256: str


class Held(msgspec.Struct, frozen=True):
    """So many bytes of a file to put are there already."""

    offset: _Count


class Stored(msgspec.Struct, frozen=True):
    """The file stands at its place."""

    bytes: _Count
    sha256: _Hash


class Found(msgspec.Struct, frozen=True):
    """A file to get; its bytes from `offset` on follow. `version` tells it from what it was."""

    size: _Count
    mode: Annotated[int, Meta(ge=0, le=0o777)]
    offset: _Count
    version: Annotated[str, Meta(max_length=200)]


class Sent(msgspec.Struct, frozen=True):
    """All has been sent; `sha256` is of the whole. With `changed` it was written to meanwhile."""

    sha256: _Hash
    changed: bool


class _Failure(msgspec.Struct, frozen=True):
    kind: str
    message: str


class Carriage:
    """One file with one porter: `begin_put`, `carry`..., `end_put`; or `begin_get`, `pieces`.

    Each raises NoSuchFile, FileRefused, FileChanged, FileBusy, Exhausted or CannotPlace for what
    the porter refuses, and SupervisorUnavailable where it has gone. Close it: then the porter
    ends.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answer: asyncio.Task[tuple[bytes, bytes]] | None = None

    @classmethod
    async def over(cls, connection: socket.socket) -> Self:
        """Speak over a connection, which is taken over."""
        reader, writer = await asyncio.open_unix_connection(
            sock=connection, limit=porter.CHUNK_BYTES
        )
        writer.transport.set_write_buffer_limits(porter.CHUNK_BYTES)
        return cls(reader, writer)

    def close(self) -> None:
        """Let go of the porter."""
        if self._answer is not None and not self._answer.cancel() and not self._answer.cancelled():
            # It has been told, or is no matter any more.
            self._answer.exception()
        self._writer.transport.abort()

    # -- into the job's directory ------------------------------------------------------------

    async def begin_put(self, parcel: Parcel) -> int:
        """Say what is to be put; how much of it is there already, from when it was begun before."""
        await self._ask(
            path=parcel.path.decode("latin-1"),
            name=parcel.name.decode("latin-1"),
            mode=parcel.mode,
            size=parcel.size,
            sha256=parcel.sha256,
        )
        held = self._read(await self._frame(), Held)
        # What it says from now on it says while it is sent something.
        self._answer = asyncio.ensure_future(self._frame())
        return held.offset

    async def carry(self, data: bytes) -> None:
        """Send the next bytes of it, MAX_DATA at most."""
        if self._answer is not None and self._answer.done():
            self._read(self._answer.result(), Stored)
            raise _nonsense()
        await self._send(porter.DATA, data)

    async def end_put(self) -> Stored:
        """Say that this was all, and wait until it stands at its place."""
        assert self._answer is not None  # noqa: S101 - begin_put comes first
        await self._send(porter.JSON, b"{}")
        return self._read(await self._answer, Stored)

    # -- out of it ---------------------------------------------------------------------------

    async def begin_get(self, path: bytes, offset: int, version: str) -> Found:
        """Ask for a file from an offset on, if it is that version still; else from the begin."""
        await self._ask(path=path.decode("latin-1"), offset=offset, version=version)
        return self._read(await self._frame(), Found)

    async def pieces(self) -> AsyncIterator[bytes | Sent]:
        """Yield its bytes, and then what tells that they were all."""
        while True:
            kind, payload = await self._frame()
            if kind == porter.DATA:
                yield payload
            else:
                yield self._read((kind, payload), Sent)
                return

    # -- frames ------------------------------------------------------------------------------

    async def _ask(self, **what: str | int) -> None:
        await self._send(porter.JSON, json.dumps(what).encode())

    async def _send(self, kind: bytes, payload: bytes) -> None:
        try:
            self._writer.write(porter.HEAD.pack(kind, len(payload)))
            self._writer.write(payload)
            await self._writer.drain()
        except ConnectionError:
            # It may have said why before it ended.
            await self._refused()

    async def _refused(self) -> Never:
        frame = await (self._answer or self._frame())
        self._read(frame, _Failure)
        raise _nonsense()

    async def _frame(self) -> tuple[bytes, bytes]:
        try:
            kind, length = porter.HEAD.unpack(await self._reader.readexactly(porter.HEAD.size))
            if length > (porter.MAX_DATA if kind == porter.DATA else porter.MAX_JSON):
                raise _nonsense()
            return kind, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise SupervisorUnavailable(
                "the process that carries the file has ended before its time"
            ) from None

    def _read(self, frame: tuple[bytes, bytes], form: type[_T]) -> _T:
        """What a frame says. Raises what it says has failed."""
        kind, payload = frame
        try:
            if kind == porter.FAILED:
                failure = msgspec.json.decode(payload, type=_Failure)
                raise _ERRORS.get(failure.kind, CannotPlace)(failure.message[:_MAX_WORDS])
            if kind == porter.JSON:
                return msgspec.json.decode(payload, type=form)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        raise _nonsense()


def _nonsense() -> SupervisorError:
    return CannotPlace("the process that carries the file says what it should not")
