"""Serves output connections: what GetOutput gives, to whom it gives it, without gRPC."""

import logging
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from jobworker.authz.identity import Identity
from jobworker.grpc_api.edge.output_connection import OutputConnection
from jobworker.grpc_api.edge.peers import Guest
from jobworker.grpc_api.errors import ReaderGone
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.call_counter import CallCounter
from jobworker.grpc_api.guard.guard import Guard, unknown_client, unless_stalled
from jobworker.grpc_api.guard.refusal import Refusal, code_of
from jobworker.grpc_api.service.compression import Compression
from jobworker.grpc_api.service.output import STREAMS, selection, timestamp
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2 import GetOutputRequest, OutputEnd, OutputFrame
from jobworker.supervisor import (
    Chunk,
    Gap,
    SupervisorClient,
    SupervisorError,
    follow,
)

log = logging.getLogger(__name__)

# Whose rule decides, and whose calls these are counted among.
_METHOD = "GetOutput"


class OutputService:
    """Answers the one request of each connection."""

    def __init__(
        self,
        guard: Guard,
        calls: CallCounter,
        supervisor: SupervisorClient,
        output: Path,
        stall_seconds: float,
    ) -> None:
        """`output` holds a directory for each job's output.

        A reader that takes nothing for `stall_seconds` is cut.
        """
        self._guard = guard
        self._calls = calls
        self._supervisor = supervisor
        self._output = output
        self._stall_seconds = stall_seconds

    async def serve(self, connection: OutputConnection, guest: Guest, address: str) -> None:
        """Serve a connection, up to and with its last frame."""
        code, words = grpc.StatusCode.CANCELLED, ""
        try:
            code, words = await self._status_of(connection, guest, address)
            connection.finish(OutputEnd(code=code.value[0], message=words))
        except ReaderGone as error:
            log.debug("an output connection from %s ended early: %s", address, error)
        finally:
            self._calls.ended[_METHOD, code.name] += 1

    async def _status_of(
        self, connection: OutputConnection, guest: Guest, address: str
    ) -> tuple[grpc.StatusCode, str]:
        """Send the output; how that ended, as GetOutput would tell it. Raises ReaderGone."""
        request = await connection.request()
        try:
            await self._answer(connection, _parsed(request), _caller(guest, address))
        except (Refusal, SupervisorError) as error:
            return code_of(error), str(error)
        return grpc.StatusCode.OK, ""

    async def _answer(
        self, connection: OutputConnection, request: GetOutputRequest, caller: Caller
    ) -> None:
        async with self._guard.authorized(_METHOD, request, caller) as call:
            wanted = selection(request)
            directory = self._output / call.job_id
            async with self._supervisor.watch(call.job_id) as watched:
                compression = _compression(request)
                async for piece in follow(watched, directory, wanted):
                    await self._deliver(connection, piece, compression)

    async def _deliver(
        self, connection: OutputConnection, piece: Chunk | Gap, compression: Compression | None
    ) -> None:
        if isinstance(piece, Gap):
            frame, data = OutputFrame(offset=piece.offset, gapBytes=piece.length), b""
        else:
            frame, data = _frame(piece), piece.data
        frame.dataBytes = len(data)
        if compression is not None and compression.wanted(len(data)):
            encoded = await compression.compressed(data)
            if encoded is not None:
                frame.encoding, data = pb.OUTPUT_ENCODING_ZSTD, encoded
                frame.encodedBytes = len(encoded)
        room = connection.send(frame, data)
        if not room:
            async with unless_stalled(self._stall_seconds):
                await connection.room()
        if compression is not None:
            compression.link.sent(len(data), waited=not room)


def _compression(request: GetOutputRequest) -> Compression | None:
    """What decides about compression; None for a client that cannot decode it."""
    if pb.OUTPUT_ENCODING_ZSTD not in request.acceptEncodings:
        return None
    return Compression(request.receivedPerSecond)


def _parsed(request: bytes) -> GetOutputRequest:
    try:
        return GetOutputRequest.FromString(request)
    except DecodeError as error:
        code = grpc.StatusCode.INVALID_ARGUMENT
        raise Refusal(code, "INVALID_REQUEST", f"this is no GetOutputRequest: {error}") from error


def _caller(guest: Guest, address: str) -> Caller:
    """Who asks. Raises Refusal for a client that is nobody, or one too many."""
    if isinstance(guest, Identity):
        return Caller(guest, address)
    raise unknown_client(guest)


def _frame(chunk: Chunk) -> OutputFrame:
    if not chunk.stream:
        return OutputFrame(offset=chunk.offset)
    stream, time = STREAMS[chunk.stream], timestamp(chunk.time_ns)
    return OutputFrame(offset=chunk.offset, stream=stream, time=time)
