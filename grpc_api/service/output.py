"""A job's output as messages: exact bytes, or text that is always valid UTF-8."""

import codecs
from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.grpc_api.guard.refusal import invalid
from jobworker.proto.workerservice_pb2 import GetOutputRequest, GetOutputResponse, OutputStream
from jobworker.supervisor import (
    CHUNK_BYTES,
    STDERR,
    STDOUT,
    Chunk,
    Gap,
    Selection,
)

STREAMS = {STDOUT: OutputStream.OUTPUT_STREAM_STDOUT, STDERR: OutputStream.OUTPUT_STREAM_STDERR}
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
# U+FFFD takes three bytes for one of the output; gRPC clients take 4 MiB a message.
TEXT_BYTES = CHUNK_BYTES // 4


def selection(request: GetOutputRequest, *, piece_bytes: int = CHUNK_BYTES) -> Selection:
    """What a request selects, in pieces of so many bytes at most.

    Raises Refusal when it says twice where to begin.
    """
    beginnings = [
        name
        for name in ("offset", "tailLines", "tailBytes", "since")
        if (request.offset if name == "offset" else request.HasField(name))
    ]
    if len(beginnings) > 1:
        both = " and ".join(beginnings)
        problem = f"{both} cannot both say where the output begins: give one"
        raise invalid(beginnings[1], problem)
    return Selection(
        offset=request.offset,
        tail_lines=request.tailLines if request.HasField("tailLines") else None,
        tail_bytes=request.tailBytes if request.HasField("tailBytes") else None,
        since_ns=request.since.ToNanoseconds() if request.HasField("since") else None,
        until_ns=request.until.ToNanoseconds() if request.HasField("until") else None,
        stream=request.stream,
        follow=not request.noFollow,
        until_exit=request.untilExit,
        by_stream=request.streams,
        by_run=request.detail,
        chunk_bytes=piece_bytes,
    )


async def as_bytes(pieces: AsyncIterator[Chunk | Gap]) -> AsyncIterator[GetOutputResponse]:
    """One message a piece."""
    async for piece in pieces:
        if isinstance(piece, Gap):
            yield GetOutputResponse(offset=piece.offset, gapBytes=piece.length)
        else:
            yield _describe(piece, GetOutputResponse(data=piece.data, offset=piece.offset))


async def as_text(pieces: AsyncIterator[Chunk | Gap]) -> AsyncIterator[GetOutputResponse]:
    """Messages that cut no code point in two; bytes that are not UTF-8 become U+FFFD."""
    decoder = _Utf8Decoder(errors="replace")
    held = end = 0
    async for piece in pieces:
        if isinstance(piece, Gap):
            yield GetOutputResponse(offset=piece.offset, gapBytes=piece.length)
            continue
        text = decoder.decode(piece.data)
        if text:
            yield _describe(piece, GetOutputResponse(output=text, offset=piece.offset - held))
        held = len(decoder.getstate()[0])
        end = piece.offset + len(piece.data)
    rest = decoder.decode(b"", final=True)
    if rest:
        yield GetOutputResponse(output=rest, offset=end - held)


def _describe(chunk: Chunk, message: GetOutputResponse) -> GetOutputResponse:
    """Add the time and the stream, where the chunk has one."""
    if chunk.stream:
        message.stream = STREAMS[chunk.stream]
        message.time.CopyFrom(timestamp(chunk.time_ns))
    return message


def timestamp(nanoseconds: int) -> Timestamp:
    """A time from nanoseconds since 1970."""
    return Timestamp(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)
