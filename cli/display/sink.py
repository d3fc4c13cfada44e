"""Where a job's output goes: stdout, as it is, as labelled lines, or as JSON lines."""

import base64
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Protocol

from jobworker.cli.display.lines import LineCutter
from jobworker.cli.errors import tell
from jobworker.cli.streams import cannot_write
from jobworker.client.pieces import Gap, Piece


class Sink(Protocol):
    """Takes the pieces of one job's output, in order, then its end.

    Both raise BrokenPipeError when nobody reads stdout any more, CannotWrite when
    it takes no more (a full disk).
    """

    def write(self, piece: Piece) -> None:
        """Write a piece at once."""

    def close(self) -> None:
        """Write what was held back for want of its end."""


@dataclass(frozen=True)
class RawSink:
    """Writes the exact bytes; what is not kept is told on stderr."""

    def write(self, piece: Piece) -> None:
        """Write a piece at once."""
        if isinstance(piece, Gap):
            _tell_gap(piece, "")
        else:
            write_out(piece.data)

    def close(self) -> None:
        """Nothing is ever held back."""


@dataclass(frozen=True)
class LineSink:
    """Writes whole lines, each with a label and, if asked for, its time."""

    label: str
    cutter: LineCutter

    def write(self, piece: Piece) -> None:
        """Write the lines that end in a piece."""
        if isinstance(piece, Gap):
            _tell_gap(piece, self.label)
        else:
            write_out(b"".join(self.cutter.lines(piece)))

    def close(self) -> None:
        """Write the lines that have no end."""
        write_out(b"".join(self.cutter.rest()))


@dataclass(frozen=True)
class JsonSink:
    """Writes a line of JSON for each piece, its bytes in base64; `job` is in each, if given."""

    job: dict[str, str] = field(default_factory=dict)

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


def write_out(data: bytes | memoryview) -> None:
    """Write all of `data` to stdout, unbuffered; see Sink for what it raises."""
    # Not sys.stdout.buffer: it would copy, and keep what a broken pipe refused.
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(1, error) from error
