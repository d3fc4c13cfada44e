"""A job's output and end, read across broken connections."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from jobworker.cli.connection import Service, outcome
from jobworker.cli.errors import CliError, tell
from jobworker.cli.outage import Outage
from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a job's output: exact bytes, and the offset of the first.

    `stream` (stdout or stderr) and `time` are there when they were asked for.
    """

    offset: int
    data: bytes
    stream: str | None = None
    time: datetime | None = None

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Gap:
    """Output that was written but is not kept: `length` bytes at `offset`."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.offset + self.length


Piece = Chunk | Gap


def read_output(
    service: Service, request: pb.GetOutputRequest, outage: Outage | None = None
) -> Iterator[Piece]:
    """Yield what `request` selects of a job's output; it names the whole ID, and asks for raw.

    When the connection breaks, it goes on from the byte it had come to.

    Raises:
        grpc.RpcError: The server refused.
        CliError: The connection broke and did not come back in time.
    """
    outage = outage or Outage()
    while True:
        try:
            for reply in service.output(request):
                outage.over()
                piece = _piece(reply)
                request = _from(piece.end, request)
                yield piece
            return
        except grpc.RpcError as error:
            _outlast(error, outage, service, f"the output of {request.jobID}")


def _piece(reply: pb.GetOutputResponse) -> Piece:
    if reply.gapBytes:
        return Gap(reply.offset, reply.gapBytes)
    if not reply.stream:
        return Chunk(reply.offset, reply.data)
    stream = "stdout" if reply.stream == pb.OUTPUT_STREAM_STDOUT else "stderr"
    return Chunk(reply.offset, reply.data, stream, reply.time.ToDatetime(tzinfo=UTC))


def _from(offset: int, request: pb.GetOutputRequest) -> pb.GetOutputRequest:
    """Return the request that goes on at `offset`, whatever it began with."""
    rest = pb.GetOutputRequest()
    rest.CopyFrom(request)
    for beginning in ("tailLines", "tailBytes", "since"):
        rest.ClearField(beginning)
    rest.offset = offset
    return rest


def wait_for_end(
    service: Service, request: pb.WaitRequest, outage: Outage | None = None
) -> pb.QueryStatusResponse:
    """Return a job's status once it has ended; a broken connection is outlasted.

    Raises:
        grpc.RpcError: The server refused.
        CliError: The connection broke and did not come back in time.
    """
    outage = outage or Outage()
    while True:
        try:
            return service.wait(request)
        except grpc.RpcError as error:
            _outlast(error, outage, service, f"the end of {request.jobID}")


def _outlast(error: grpc.RpcError, outage: Outage, service: Service, sought: str) -> None:
    """Wait out the outage that `error` tells of; raise it if it is none, or lasts too long."""
    code, _ = outcome(error)
    if code is not grpc.StatusCode.UNAVAILABLE:
        raise error
    if not outage.lasting:
        tell(f"lost the connection to {service.server}; going on with {sought} when it is back")
    if not outage.wait():
        failure = service.failure(error)
        raise CliError(f"gave up on {sought}: {failure}", failure.exit_code) from error
