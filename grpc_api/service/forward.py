"""Carrying a TCP connection over a stream in both directions: as it comes, and no faster."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb

# What is read of the job's side at once, and at most held of either.
CHUNK_BYTES = 64 * 1024

# What closing a socket does (socket(7), SO_LINGER): break the connection, or end it.
_BROKEN, _WHOLE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


@dataclass
class Carried:
    """Bytes to the job, and from it."""

    up: int = 0
    down: int = 0


async def carry(
    connection: socket.socket, requests: AsyncIterator[pb.ForwardData], carried: Carried
) -> AsyncGenerator[pb.ForwardData]:
    """Carry a connection until both sides have said all. Raises Refusal when one breaks it.

    It is closed then, and also when this is; `carried` counts meanwhile.
    """
    reader, writer = await asyncio.open_connection(sock=connection, limit=CHUNK_BYTES)
    writer.transport.set_write_buffer_limits(CHUNK_BYTES)
    # Until both have said all, an end is no good one, and the job is to see that.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BROKEN)
    up = asyncio.ensure_future(_up(requests, writer, carried))
    try:
        async for data in _down(reader, up):
            carried.down += len(data)
            yield pb.ForwardData(data=data)
        yield pb.ForwardData(end=True)
        await up
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WHOLE)
        # What the job has not read yet goes first.
        writer.close()
        await writer.wait_closed()
    except ConnectionError as error:
        raise Refusal(
            grpc.StatusCode.ABORTED, "CONNECTION_RESET", f"the connection is broken: {error}"
        ) from error
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _down(reader: asyncio.StreamReader, up: "asyncio.Future[None]") -> AsyncIterator[bytes]:
    """What the job says, to its end. Raises what `up` fails with meanwhile."""
    while True:
        read = asyncio.ensure_future(reader.read(CHUNK_BYTES))
        try:
            while not read.done():
                waiting: set[asyncio.Future[Any]] = {read} if up.done() else {read, up}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if up.done():
                    up.result()
        finally:
            read.cancel()
        if not (data := read.result()):
            return
        yield data


async def _up(
    requests: AsyncIterator[pb.ForwardData], writer: asyncio.StreamWriter, carried: Carried
) -> None:
    async for message in requests:
        if message.data:
            carried.up += len(message.data)
            writer.write(message.data)
            await writer.drain()
        if message.end:
            writer.write_eof()
            return
    # Also what gRPC gives for a client that has gone.
    raise ConnectionAbortedError("the client ended the stream before it ended the connection")
