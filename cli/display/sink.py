"""Where a job's output goes: stdout and stderr, as it is or as labelled lines, or JSON lines."""

import base64
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from jobworker.cli.display.lines import NEWLINE, LineCutter, Part
from jobworker.cli.errors import tell
from jobworker.cli.streams import STDERR, STDOUT, cannot_write
from jobworker.client.pieces import Gap, Piece

# How long a line waits for another job's long one to end, before it breaks that.
LONG_LINE_SECONDS = 2.0


class Sink(Protocol):
    """Takes the pieces of one job's output, in order, then its end.

    Both raise BrokenPipeError when nobody reads stdout, or stderr, any more,
    CannotWrite when it takes no more (a full disk).
    """

    def write(self, piece: Piece) -> None:
        """Write a piece at once."""

    def close(self) -> None:
        """Write what was held back for want of its end."""


@dataclass(frozen=True)
class RawSink:
    """Writes the exact bytes to where the job wrote them; what is not kept is told on stderr.

    With `merge` all goes to stdout, as does what has no stream.
    """

    merge: bool = False

    def write(self, piece: Piece) -> None:
        """Write a piece at once."""
        if isinstance(piece, Gap):
            _tell_gap(piece, "")
        else:
            write_out(piece.data, _descriptor(piece.stream, merge=self.merge))

    def close(self) -> None:
        """Nothing is ever held back."""


class LineOutput:
    """stdout and stderr, for the lines of several jobs and streams.

    What is longer than a line is held back goes out in parts, with one prefix
    before it all: others wait a moment for its end, and then break it.
    """

    def __init__(self, writing: threading.Condition, *, merge: bool = False) -> None:
        """`writing` is held by whoever writes to either; with `merge` all goes to stdout."""
        self._merge = merge
        self._writing = writing
        # Descriptor -> the sink and stream whose line is begun there.
        self._begun: dict[int, tuple[object, str | None]] = {}

    def write(self, owner: object, parts: Iterable[Part]) -> None:
        """Write parts of the lines of one job, `owner`; see Sink for what it raises."""
        fitted: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
        with self._writing:
            for part in parts:
                descriptor = _descriptor(part.stream, merge=self._merge)
                if self._begun.get(descriptor, (owner,))[0] is not owner:
                    _write_all(fitted)
                    self._await_end(descriptor)
                fitted[descriptor] += self._fitted(descriptor, (owner, part.stream), part)
            _write_all(fitted)
            self._writing.notify_all()

    def _await_end(self, descriptor: int) -> None:
        self._writing.wait_for(lambda: descriptor not in self._begun, LONG_LINE_SECONDS)

    def _fitted(self, descriptor: int, whose: tuple[object, str | None], part: Part) -> bytes:
        """The part with what must stand before it; notes whose line is begun after it."""
        begun = self._begun.get(descriptor)
        before = b""
        if begun != whose:
            before = (NEWLINE if begun else b"") + part.prefix
        self._begun.pop(descriptor, None)
        if not part.ends:
            self._begun[descriptor] = whose
        return before + part.text


@dataclass(frozen=True)
class LineSink:
    """Writes whole lines, each with a label and, if asked for, its time."""

    label: str
    cutter: LineCutter
    output: LineOutput

    def write(self, piece: Piece) -> None:
        """Write the lines that end in a piece."""
        if isinstance(piece, Gap):
            _tell_gap(piece, self.label)
        else:
            self.output.write(self, self.cutter.parts(piece))

    def close(self) -> None:
        """Write the lines that have no end."""
        self.output.write(self, self.cutter.rest())


@dataclass(frozen=True)
class JsonSink:
    """Writes a line of JSON for each piece, its bytes in base64; `job` is in each."""

    job: dict[str, str]

    def write(self, piece: Piece) -> None:
        """Write a piece at once."""
        write_out(json.dumps({**self.job, **_fields(piece)}).encode() + b"\n")

    def close(self) -> None:
        """Nothing is ever held back."""


def _fields(piece: Piece) -> dict[str, str | int]:
    if isinstance(piece, Gap):
        return {"offset": piece.offset, "gap_bytes": piece.length}
    fields: dict[str, str | int] = {
        "offset": piece.offset,
        "data": base64.b64encode(piece.data).decode("ascii"),
    }
    if piece.stream and piece.time:
        fields |= {"stream": piece.stream, "time": piece.time.isoformat().replace("+00:00", "Z")}
    return fields


def _tell_gap(gap: Gap, label: str) -> None:
    tell(f"{label}{gap.length} bytes of output from byte {gap.offset} on are not kept")


def _descriptor(stream: str | None, *, merge: bool) -> int:
    return STDERR if stream == "stderr" and not merge else STDOUT


def _write_all(fitted: dict[int, bytearray]) -> None:
    for descriptor, data in fitted.items():
        write_out(data, descriptor)
        data.clear()


def write_out(data: bytes | bytearray | memoryview, descriptor: int = STDOUT) -> None:
    """Write all of `data` to stdout or stderr, unbuffered; see Sink for what it raises."""
    # Not sys.stdout.buffer: it would copy, and keep what a broken pipe refused.
    try:
        with memoryview(data) as whole:
            written = 0
            while written < len(whole):
                written += os.write(descriptor, whole[written:])
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(descriptor, error) from error
