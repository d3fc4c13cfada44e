"""What nodes have told in jobs' directories. Their users own those: nothing there is trusted."""

import os
import stat
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from jobworker.supervisor.host.accounting import ExitUsage, Usage
from jobworker.supervisor.output.segments import recorded_end, segment_starts
from jobworker.supervisor.slurm.files import EXIT, STARTED, Places

_MOST_BYTES = 64 * 1024
# What the journal and messages can hold of numbers, and more than any can be.
_Count = Annotated[int, Meta(ge=0, le=2**40)]
_Seconds = Annotated[float, Meta(ge=0.0, le=2.0**40)]
_MOST_OUTPUT = 2**50
_MOST_WORDS = 400
_MOST_CODE = 255

_T = TypeVar("_T", bound=msgspec.Struct)


class Started(msgspec.Struct, frozen=True):
    """The program executes: as which process, on which node, in which job of Slurm's."""

    pid: Annotated[int, Meta(ge=1, le=2**22)]
    node: str
    slurm: Annotated[int, Meta(ge=0, le=2**31)]


class Ended(msgspec.Struct, frozen=True):
    """How it ended, `code` -N for signal N; or with an `error` at a `step`: it never began.

    `termed` is the signal with which Slurm had it end, 0 for none;
    `out_of_memory` that the node did, as it had too much.
    """

    code: int = 0
    user_seconds: _Seconds = 0.0
    system_seconds: _Seconds = 0.0
    peak_kib: _Count = 0
    read_blocks: _Count = 0
    written_blocks: _Count = 0
    termed: _Count = 0
    out_of_memory: bool = False
    error: int = 0
    step: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for what no process ends with."""
        if not -64 <= self.code <= _MOST_CODE or not 0 <= self.error < 4096:
            raise ValueError("no such status")

    @property
    def what(self) -> str:
        """The step, as it can be shown."""
        shown = self.step[:_MOST_WORDS]
        return "".join(char if char.isprintable() else "?" for char in shown)

    @property
    def usage(self) -> Usage:
        """What the job has used."""
        return ExitUsage(
            self.user_seconds,
            self.system_seconds,
            self.peak_kib,
            self.read_blocks,
            self.written_blocks,
        ).usage()


class Glance(msgspec.Struct, frozen=True):
    """A job's directory at a moment."""

    started: Started | None
    ended: Ended | None
    output_begin: int
    output_end: int


def look(places: Places) -> Glance:
    """What is there now. What cannot be read, or makes no sense, is as if it were not there."""
    # First: what the node has recorded before it told the end is there then.
    ended = _read(places.told(EXIT), Ended)
    started = _read(places.told(STARTED), Started)
    begin = end = 0
    try:
        end = recorded_end(places.output)
        begin = min([*segment_starts(places.output), end])
    except (OSError, ValueError):
        pass
    if not 0 <= begin <= end <= _MOST_OUTPUT:
        begin = end = 0
    return Glance(started, ended, begin, end)


def has_started(places: Places) -> bool:
    """Whether there is more to look at: what it costs is one system call."""
    return places.told(STARTED).exists() or places.told(EXIT).exists()


def _read(path: Path, kind: type[_T]) -> _T | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return msgspec.json.decode(os.read(descriptor, _MOST_BYTES), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
    finally:
        os.close(descriptor)
