"""A job's output as it comes: chunks of exact bytes, and gaps."""

from dataclasses import dataclass
from datetime import UTC, datetime

from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a job's output: exact bytes, and the offset of the first.

    `stream` (stdout or stderr) and `time`, of its first byte, are there when they
    were asked for.
    `data` may be overwritten as soon as the next piece is asked for: copy what
    is to be kept.
    """

    offset: int
    data: bytes | memoryview
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


def chunk_of(
    message: pb.GetOutputResponse | pb.OutputFrame, offset: int, data: bytes | memoryview
) -> Chunk:
    """A chunk with the stream and time of the message it came in, if that tells them."""
    if not message.stream:
        return Chunk(offset, data)
    stream = "stdout" if message.stream == pb.OUTPUT_STREAM_STDOUT else "stderr"
    return Chunk(offset, data, stream, message.time.ToDatetime(tzinfo=UTC))
