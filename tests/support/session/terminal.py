"""A real terminal that the command runs on, and what a person sees there."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pyte

from tests.support.server import JOBWORKER, Server

DEADLINE_SECONDS = 30
ROWS, COLUMNS = 24, 80


class _Screen(pyte.Screen):
    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        # What vim sends with a question mark is not about colours; pyte would take it so.
        if not private:
            super().select_graphic_rendition(*attributes)


class Terminal:
    """The command on a pseudo-terminal; `screen` is what is shown, bytes are kept in `seen`."""

    def __init__(self, process: "pexpect.spawn[bytes]") -> None:
        self.process = process
        self.seen = b""
        self._taken = 0
        self._screen = _Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)

    def type(self, keys: str | bytes) -> None:
        """Press keys."""
        self.process.send(keys)

    def until(self, pattern: str) -> str:
        """Wait until a line of the screen matches; that line."""
        while (line := self.line(pattern)) is None:
            self._read()
        return line

    def until_bytes(self, wanted: bytes) -> None:
        """Wait until exactly that has come."""
        while wanted not in self.seen:
            self._read()

    def take(self, wanted: bytes) -> bytes:
        """Wait until that has come behind what was taken last; all up to its end."""
        while (at := self.seen.find(wanted, self._taken)) < 0:
            self._read()
        begin, self._taken = self._taken, at + len(wanted)
        return self.seen[begin : self._taken]

    def line(self, pattern: str) -> str | None:
        """The first line of the screen that matches now."""
        return next((line for line in self._screen.display if re.search(pattern, line)), None)

    def lines(self) -> list[str]:
        """The lines of the screen, as it is now."""
        return list(self._screen.display)

    def until_gone(self, pattern: str) -> None:
        """Wait until no line of the screen matches."""
        while self.line(pattern) is not None:
            self._read()

    def _read(self) -> None:
        try:
            data = self.process.read_nonblocking(65536, DEADLINE_SECONDS)
        except pexpect.TIMEOUT:
            raise AssertionError("\n".join(self._screen.display)) from None
        except pexpect.EOF:
            raise AssertionError(f"ended: {self.seen!r}") from None
        self.seen += data
        self._stream.feed(data)

    def resize(self, rows: int, columns: int) -> None:
        """Make the window another size."""
        self._screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def end(self) -> int:
        """Wait for the command to end; its exit code."""
        while True:
            try:
                data = self.process.read_nonblocking(65536, DEADLINE_SECONDS)
            except pexpect.EOF:
                break
            self.seen += data
            self._stream.feed(data)
        self.process.wait()
        return int(self.process.exitstatus if self.process.exitstatus is not None else -1)


@contextmanager
def on_terminal(
    server: Server, user: str, *words: str, rows: int = ROWS, columns: int = COLUMNS
) -> Iterator[Terminal]:
    """Run the command as `user` on a terminal; it is killed if it still runs at the end."""
    command = [str(JOBWORKER), *words]
    with on_terminal_of(command, server.environment(user), rows=rows, columns=columns) as terminal:
        yield terminal


@contextmanager
def on_terminal_of(
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path | None = None,
    *,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Iterator[Terminal]:
    """The same of any command, in a directory."""
    process = pexpect.spawn(
        # However the tests were started: nohup(1) and the shell's & leave signals ignored.
        "/usr/bin/env",
        ["--default-signal=HUP,INT,QUIT,TERM", *command],
        env={**environment, "TERM": "xterm-256color"},
        cwd=directory,
        dimensions=(rows, columns),
        timeout=None,
    )
    try:
        yield Terminal(process)
    finally:
        process.close(force=True)
