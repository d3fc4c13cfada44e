"""Files into jobs' directories and out of them: between a call and the porter that carries them."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from jobworker.grpc_api.guard.audit_trail import Session
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import Refusal, invalid
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    MAX_DATA,
    Carriage,
    Parcel,
    Sent,
    SupervisorClient,
    SupervisorError,
)

MAX_PATH, MAX_NAME, MAX_VERSION = 4096, 255, 200
MAX_MODE = 0o7777
_MAX_SIZE = 2**62
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Who puts a file and sends nothing for so long is taken to be gone; they go on where it was.
SILENCE_SECONDS = 60.0


@dataclass
class _Tally:
    """Bytes to the job, and from it, and why it did not go."""

    up: int = 0
    down: int = 0
    why: str = ""


class Files:
    """Serves Put and Get."""

    def __init__(self, supervisor: SupervisorClient) -> None:
        self._supervisor = supervisor

    async def put(
        self, call: Call, request: pb.PutRequest, requests: AsyncIterator[pb.PutRequest]
    ) -> AsyncGenerator[pb.PutResponse]:
        """Put a file, of which `request` is the first message. Raises Refusal."""
        parcel = _parcel(request)
        with _audited(call, "put", parcel.path or parcel.name) as tally:
            carriage = await self._carriage(call, put=True)
            try:
                offset = await carriage.begin_put(parcel)
                yield pb.PutResponse(offset=offset)
                # Of what the first message holds, something may be there already.
                data, ended = request.data[offset:], request.end
                while True:
                    if data:
                        await carriage.carry(data)
                        tally.up += len(data)
                    if ended:
                        break
                    message = await _next(requests)
                    data, ended = _checked_data(message.data), message.end
                await carriage.end_put()
                yield pb.PutResponse(offset=parcel.size, done=True)
            finally:
                carriage.close()

    async def get(self, call: Call, request: pb.GetRequest) -> AsyncGenerator[pb.GetResponse]:
        """Get a file. Raises Refusal."""
        path = _checked_path(request.path)
        if len(request.version) > MAX_VERSION:
            raise invalid("version", "that is no file's version")
        with _audited(call, "get", path) as tally:
            carriage = await self._carriage(call, put=False)
            try:
                found = await carriage.begin_get(path, request.offset, request.version)
                file = pb.FileFound(
                    size=found.size, mode=found.mode, offset=found.offset, version=found.version
                )
                yield pb.GetResponse(file=file)
                async for piece in carriage.pieces():
                    if isinstance(piece, Sent):
                        end = pb.FileEnd(sha256=piece.sha256, changed=piece.changed)
                        yield pb.GetResponse(end=end)
                    else:
                        tally.down += len(piece)
                        yield pb.GetResponse(data=piece)
            finally:
                carriage.close()

    async def _carriage(self, call: Call, *, put: bool) -> Carriage:
        return await Carriage.over(await self._supervisor.porter(call.job_id, put=put))


@contextmanager
def _audited(call: Call, action: str, path: bytes) -> Iterator[_Tally]:
    """Have it recorded what went through, or why nothing did."""
    assert call.job is not None  # noqa: S101 - the guard resolves it for methods about one job
    tally, began = _Tally(), time.monotonic()
    try:
        yield tally
    except (Refusal, SupervisorError) as error:
        tally.why = f" (failed: {error})"
        raise
    finally:
        target = path.decode("utf-8", "backslashreplace") + tally.why
        seconds = time.monotonic() - began
        call.ended(Session(action, call.job, target, tally.up, tally.down, seconds))


async def _next(requests: AsyncIterator[pb.PutRequest]) -> pb.PutRequest:
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await anext(requests)
    except TimeoutError:
        why = f"nothing of the file came for {SILENCE_SECONDS:g} s"
    except StopAsyncIteration:
        # Also what gRPC gives for a client that has gone.
        why = "the stream ended before the file did"
    raise Refusal(grpc.StatusCode.ABORTED, "SENDER_GONE", f"{why}: ask again, and go on")


def _parcel(request: pb.PutRequest) -> Parcel:
    if len(request.name) > MAX_NAME or b"\0" in request.name:
        raise invalid("name", f"a name has {MAX_NAME} bytes at most, and no NUL")
    if request.mode > MAX_MODE:
        raise invalid("mode", f"{request.mode:#o} is no mode of a file")
    if request.size > _MAX_SIZE:
        raise invalid("size", f"no file has {request.size} bytes")
    if not _SHA256.fullmatch(request.sha256):
        raise invalid("sha256", "a SHA-256 is 64 of 0-9 and a-f")
    _checked_data(request.data)
    path = _checked_path(request.path)
    return Parcel(path, request.name, request.mode, request.size, request.sha256)


def _checked_path(path: bytes) -> bytes:
    if len(path) > MAX_PATH or b"\0" in path:
        raise invalid("path", f"a path has {MAX_PATH} bytes at most, and no NUL")
    return path


def _checked_data(data: bytes) -> bytes:
    if len(data) > MAX_DATA:
        raise invalid("data", f"{len(data)} bytes at once are more than {MAX_DATA}")
    return data
