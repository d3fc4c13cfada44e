"""Carrying TCP connections from this host to a port of a job.

Modules that import this one import gRPC, which takes a while.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from jobworker.client.channel import AsyncChannel
from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed
from jobworker.client.outcome import call_failed, whole_id
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

CHUNK_BYTES = 64 * 1024
# Here alone: as with ssh -L, whoever is on this host may use it.
HOST = "127.0.0.1"
# With these no other connection would do better.
_FINAL = {"NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"}
# The job has broken the connection, and so is it here.
_RESET = "ABORTED"
# Closing a socket with this breaks the connection (socket(7), SO_LINGER).
_BROKEN = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Forward:
    """Carries connections to one port of a job. To be used in one event loop, and closed."""

    def __init__(
        self, endpoint: Endpoint, job: str, port: int, told: Callable[[CallFailed], None]
    ) -> None:
        """`told` is called with why a connection could not be made, or broke. Raises BadFile."""
        self._channel = AsyncChannel(endpoint)
        self._job = job
        self._port = port
        self._told = told
        self._over: asyncio.Future[None]
        self._carrying: set[asyncio.Task[None]] = set()

    async def check(self) -> None:
        """Raise CallFailed unless one may connect to the job's ports."""
        call = self._call()
        try:
            await call.write(pb.ForwardData(jobID=self._job))
            await call.done_writing()
            while isinstance(await call.read(), pb.ForwardData):
                pass
            # Every connection is to be to the same one.
            self._job = whole_id(await call.initial_metadata(), self._job)
        except grpc.RpcError as error:
            raise call_failed(error) from error
        except asyncio.InvalidStateError:
            raise CallFailed((await call.code()).name, await call.details()) from None

    async def listen(self, local: int, listening: Callable[[int], None]) -> None:
        """Listen at a port of this host, 0 for any; `listening` is told which. Until cancelled.

        Raises OSError when the port is taken, and CallFailed once there is no more to be had.
        """
        self._over = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(self._connected, HOST, local, limit=CHUNK_BYTES)
        async with server:
            listening(server.sockets[0].getsockname()[1])
            await self._over

    async def close(self) -> None:
        """Break what is being carried, and hang up."""
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await self._channel.close()

    def _call(self) -> Any:
        return WorkerServiceStub(self._channel.current()).Forward()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server makes one for each
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        try:
            await self._carry(reader, writer)
        except CallFailed as error:
            _break(writer)
            if error.code in _FINAL and not self._over.done():
                self._over.set_exception(error)
            elif error.code != _RESET:
                self._told(error)
        except OSError:
            # Who had connected here has broken the connection.
            _break(writer)
        except asyncio.CancelledError:
            _break(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(CHUNK_BYTES)
        call = self._call()
        try:
            await call.write(pb.ForwardData(jobID=self._job, port=self._port))
            await call.read()
            await _both(_up(call, reader), _down(call, writer))
            writer.close()
            await writer.wait_closed()
        except grpc.RpcError as error:
            raise call_failed(error) from error
        except asyncio.InvalidStateError:
            # Written to a call that had ended.
            raise CallFailed((await call.code()).name, await call.details()) from None
        finally:
            call.cancel()


async def _both(*ways: Coroutine[Any, Any, None]) -> None:
    """Run both to their ends; one that fails, or being cancelled, ends the other."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _up(call: Any, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await call.write(pb.ForwardData(data=data))
    await call.write(pb.ForwardData(end=True))
    await call.done_writing()


async def _down(call: Any, writer: asyncio.StreamWriter) -> None:
    """Write what comes until the stream ends: the server has passed on all by then."""
    ended = False
    # At the end of the stream it is something else.
    while isinstance(message := await call.read(), pb.ForwardData):
        if message.data:
            writer.write(message.data)
            await writer.drain()
        if message.end:
            writer.write_eof()
            ended = True
    if not ended:
        raise CallFailed(_RESET, "the server ended the stream before it ended the connection")


def _break(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the other side does not take it for a good end."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BROKEN)
    writer.transport.abort()
