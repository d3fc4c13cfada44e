"""The files of an audit log, and the lines in them.

A log is a directory of audit-NUMBER.jsonl; NUMBER is that of the file's first
record, so their names sort in the order of the chain.
"""

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobworker.authz.audit.record import GENESIS, AuditError, Record, decode, line_hash

_NAME = re.compile(r"audit-(\d{12})\.jsonl")


class AuditBroken(AuditError):
    """The log is not as it was written; names file and line."""


class AuditGone(AuditError):
    """The file was removed, as the newest ones alone are kept."""


class Line(NamedTuple):
    """A record, and where it stands; `number` counts the file's lines from 1."""

    file: Path
    number: int
    text: bytes
    record: Record


class Verified(NamedTuple):
    """A log whose chain holds: its records' first and last number, and the last line's hash.

    With no records both numbers are 0. `first` is over 1 when the oldest files
    were removed.
    """

    files: int
    first: int
    last: int
    head: str


def file_name(first: int) -> str:
    """Return the name of the file that begins with a record of this number."""
    return f"audit-{first:012}.jsonl"


def files_of(directory: Path) -> list[Path]:
    """Return the log's files, the oldest first.

    Raises:
        AuditError: The directory cannot be read.
    """
    try:
        return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))
    except OSError as error:
        raise AuditError(f"cannot read the audit log {directory}: {error.strerror}") from error


def lines_of(file: Path) -> Iterator[Line]:
    """Yield the lines of a file; one without an end, which is being written, is left out.

    Raises:
        AuditBroken: A line is no record.
        AuditError: The file cannot be read.
    """
    for number, text in enumerate(texts_of(file), 1):
        yield decoded(file, number, text)


def last_lines(directory: Path, count: int) -> list[Line]:
    """Return the last lines of a log, the oldest first. Raises as `lines_of`."""
    found: list[Line] = []
    for file in reversed(files_of(directory)):
        if len(found) >= count:
            break
        texts = deque(enumerate(texts_of(file), 1), maxlen=count - len(found))
        found = [*(decoded(file, number, text) for number, text in texts), *found]
    return found


class Follower:
    """Reads a log while it grows, from its end on."""

    def __init__(self, directory: Path) -> None:
        """Begin after the lines that are there. Raises AuditError."""
        self._directory = directory
        self._file: Path | None = None
        self._offset = self._number = 0
        for _ in self.new_lines():
            pass

    def new_lines(self) -> Iterator[Line]:
        """Yield the lines that were written since. Raises as `lines_of`."""
        # A file that has a successor does not grow any more, so what is known of
        # the files must be older than what is read of them.
        for file in files_of(self._directory):
            if self._file is None or file > self._file:
                self._file, self._offset, self._number = file, 0, 0
            if file == self._file:
                yield from self._rest(file)

    def _rest(self, file: Path) -> Iterator[Line]:
        for text in texts_of(file, self._offset):
            self._offset += len(text) + 1
            self._number += 1
            yield decoded(file, self._number, text)


def verify(directory: Path, known: str | None = None) -> Verified:
    """Check that every line of a log follows from the one before.

    `known` is a line's hash that was noted before; the log must still have it.

    Raises:
        AuditBroken: It is not so; says where and why.
        AuditError: The log cannot be read.
    """
    files = files_of(directory)
    first = last = 0
    head = GENESIS
    known_is_there = known is None
    for file in files:
        begins = _first_of(file)
        if last and begins != last + 1:
            raise AuditBroken(
                f"{file}: begins with record {begins}, but the file before it ended with {last}"
            )
        for line in lines_of(file):
            expected = last + 1 if last else begins
            _check(line, expected, head if last or expected == 1 else None)
            first = first or expected
            last, head = expected, line_hash(line.text)
            known_is_there = known_is_there or head == known
    if not known_is_there:
        raise AuditBroken(
            f"{directory}: no line has the hash {known}; "
            "the log was cut off, made anew, or its oldest files were removed"
        )
    return Verified(len(files), first, last, head)


def _first_of(file: Path) -> int:
    return int(file.stem.removeprefix("audit-"))


def _check(line: Line, number: int, previous: str | None) -> None:
    where = f"{line.file}:{line.number}"
    if line.record.number != number:
        raise AuditBroken(
            f"{where}: record {line.record.number} stands where {number} should; "
            "lines were removed, put in or moved"
        )
    if previous is not None and line.record.previous != previous:
        raise AuditBroken(
            f"{where}: record {number} does not follow from the line before it, "
            "which was changed, or this one was"
        )


def texts_of(file: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield the lines of a file from an offset on, as bytes; one without an end is left out.

    Raises:
        AuditGone: The file is not there.
        AuditError: It cannot be read.
    """
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            for text in opened:
                if text.endswith(b"\n"):
                    yield text[:-1]
    except OSError as error:
        kind = AuditGone if isinstance(error, FileNotFoundError) else AuditError
        raise kind(f"cannot read the audit log {file}: {error.strerror}") from error


def decoded(file: Path, number: int, text: bytes) -> Line:
    """Return a line of a file, counted from 1. Raises AuditBroken if it is no record."""
    try:
        return Line(file, number, text, decode(text))
    except AuditError as error:
        raise AuditBroken(f"{file}:{number}: {error}") from error
