"""Writes the audit log: appends to it, goes on after a crash, and begins new files."""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jobworker.authz.audit.files import file_name, files_of, last_lines
from jobworker.authz.audit.record import (
    GENESIS,
    AuditError,
    Event,
    Record,
    Recovered,
    encode,
    line_hash,
)

MAX_FILE_BYTES = 64 * 1024 * 1024


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AuditLog:
    """An audit log that is open for writing, by this process alone; any thread may append.

    A record that was appended survives this process. Whether it survives the
    machine is up to `durable`: each append then waits for the disk (fsync(2)).
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        keep_files: int | None = None,
        durable: bool = False,
        clock: Callable[[], datetime] = _utc_now,
        make_room: Callable[[], bool] = bool,
    ) -> None:
        """Open the log in a directory, which is made if it is not there.

        A file is followed by a new one when it has `max_file_bytes`. Of those
        the newest `keep_files` are kept; all, if it is None. `make_room` is called when
        there is none for a record: it is tried once more if that returns true.

        Raises:
            AuditError: It cannot be written, is damaged, or another process has it open.
        """
        self._directory = directory
        self._max_file_bytes = max_file_bytes
        self._keep_files = keep_files
        self._durable = durable
        self._clock = clock
        self._make_room = make_room
        self._appending = threading.Lock()
        self._last, self._head, self._size = 0, GENESIS, 0
        # Whether the file may end with part of a line that could not be written.
        self._torn = False
        self._file = -1
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _cannot_write(directory, error) from error
        try:
            self._hold()
            self._go_on()
        except BaseException:
            self.close()
            raise

    def append(self, event: Event) -> int:
        """Record the event, and return the record's number.

        Raises:
            AuditError: It could not be recorded. What it is about must not be
                done then. The log is as it was before.
        """
        with self._appending:
            if self._size >= self._max_file_bytes:
                self._begin_file()
            number = self._last + 1
            line = encode(Record(number, self._clock(), self._head, event))
            self._write_if_need_be_with_more_room(line + b"\n")
            self._last, self._head = number, line_hash(line)
            return number

    def close(self) -> None:
        """Close the files; others may write the log then."""
        for handle in (self._file, self._held):
            if handle >= 0:
                os.close(handle)
        self._file = self._held = -1

    def _hold(self) -> None:
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AuditError(
                f"another process writes the audit log {self._directory}; "
                "end it, or choose another directory"
            ) from error

    def _go_on(self) -> None:
        """Find the end of the chain. What a crash left unfinished was answered to nobody."""
        files = files_of(self._directory)
        for line in last_lines(self._directory, 1):
            self._last, self._head = line.record.number, line_hash(line.text)
        if not files:
            self._begin_file()
            return
        self._open(files[-1])
        unfinished = self._cut_unfinished(files[-1])
        if unfinished:
            self.append(Recovered(dropped_bytes=unfinished))

    def _cut_unfinished(self, file: Path) -> int:
        try:
            content = file.read_bytes()
            self._size = content.rfind(b"\n") + 1
            if self._size < len(content):
                self._truncate(self._size)
        except OSError as error:
            raise _cannot_write(file, error) from error
        return len(content) - self._size

    def _begin_file(self) -> None:
        path = self._directory / file_name(self._last + 1)
        self._open(path)
        self._size = 0
        try:
            os.fsync(self._held)
            if self._keep_files is not None:
                for old in files_of(self._directory)[: -self._keep_files]:
                    old.unlink()
        except OSError as error:
            raise _cannot_write(self._directory, error) from error

    def _open(self, path: Path) -> None:
        try:
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise _cannot_write(path, error) from error
        if self._file >= 0:
            os.close(self._file)
        self._file = opened

    def _write_if_need_be_with_more_room(self, content: bytes) -> None:
        try:
            self._write(content)
        except AuditError:
            if not self._make_room():
                raise
            self._write(content)

    def _write(self, content: bytes) -> None:
        try:
            if self._torn:
                self._truncate(self._size)
            self._torn = True
            if os.write(self._file, content) < len(content):
                # write(2) is short when the disk fills up.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._durable:
                os.fdatasync(self._file)
            self._torn = False
        except OSError as error:
            with contextlib.suppress(OSError):
                # Done again before the next line, if it fails now.
                self._truncate(self._size)
            raise _cannot_write(self._directory, error) from error
        self._size += len(content)

    def _truncate(self, size: int) -> None:
        os.ftruncate(self._file, size)
        self._torn = False


def _cannot_write(path: Path, error: OSError) -> AuditError:
    return AuditError(
        f"cannot write the audit log {path}: {error.strerror}; "
        "nothing is done that cannot be recorded"
    )
