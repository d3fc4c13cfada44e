"""What a job's output must be: every byte it wrote, with its time and its stream, in memory."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from jobworker.supervisor.output.reader import Chunk, Gap
from jobworker.supervisor.output.segments import GAP

# What is told of times is right to this.
PRECISION_NS = 10_000_000


@dataclass
class Output:
    """All that was taken out of the pipes. A byte that was lost has the stream GAP."""

    data: bytearray = field(default_factory=bytearray)
    streams: bytearray = field(default_factory=bytearray)
    times: "array[int]" = field(default_factory=lambda: array("q"))
    # Before it a rotation has dropped everything.
    begin: int = 0

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return len(self.data)

    def add(self, data: bytes, stream: int, time_ns: int) -> None:
        """More bytes arrived, or (GAP) were lost."""
        self.data += data
        self.streams += bytes([stream]) * len(data)
        self.times.extend([time_ns] * len(data))

    def kept(self, stream: int = 0, offset: int = 0) -> bytes:
        """What there is to read of a stream (0: of both) from an offset on."""
        first = max(offset, self.begin)
        pairs = zip(self.data[first:], self.streams[first:], strict=True)
        return bytes(byte for byte, of in pairs if of != GAP and stream in (0, of))

    def check(
        self, piece: Chunk | Gap, *, dropped: int | None = None, one_time: bool = True
    ) -> int:
        """Every byte of a piece is what it says it is. Returns the offset after it.

        With `one_time`, a piece of one stream is of one time, too. `dropped` is how
        far a reader may have missed what was dropped meanwhile.
        """
        if isinstance(piece, Gap):
            missing = self.begin if dropped is None else dropped
            assert piece.length > 0
            end = piece.offset + piece.length
            assert end <= self.end
            kept = [at for at in range(max(piece.offset, missing), end) if self.streams[at] != GAP]
            assert not kept, f"told as a gap, but kept: {kept}"
            return end
        end = piece.offset + len(piece.data)
        assert piece.data
        assert piece.data == self.data[piece.offset : end]
        streams = set(self.streams[piece.offset : end])
        assert GAP not in streams, "told as output, but lost"
        times = self.times[piece.offset : end]
        if piece.stream:
            assert streams == {piece.stream}
            if one_time:
                assert max(abs(time - piece.time_ns) for time in times) < PRECISION_NS
        assert abs(times[0] - piece.time_ns) < PRECISION_NS
        return end

    def check_all(
        self,
        pieces: Iterable[Chunk | Gap],
        offset: int,
        stream: int = 0,
        *,
        one_time: bool = True,
    ) -> None:
        """The pieces are all there is from an offset on, of a stream or of both, and all gaps."""
        at = offset
        told = bytearray()
        for piece in pieces:
            assert piece.offset == at if not stream else piece.offset >= at
            assert not stream or isinstance(piece, Gap) or piece.stream == stream
            self._check_passed_over(at, piece.offset, stream)
            at = self.check(piece, one_time=one_time)
            told += b"" if isinstance(piece, Gap) else piece.data
        self._check_passed_over(at, self.end, stream)
        assert at == self.end or stream
        assert told == self.kept(stream, offset)

    def _check_passed_over(self, first: int, end: int, stream: int) -> None:
        passed_over = set(self.streams[first:end])
        assert not passed_over & {GAP, stream}
        assert first >= end or first >= self.begin, "what was dropped is not told"
