"""What is typed here, or comes on stdin, on its way to a job."""

import contextlib
import importlib.util
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from jobworker.cli.streams import STDERR, STDIN, STDOUT
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.input import InputSender

READ_BYTES = 1024 * 1024
DETACH_KEYS = "ctrl-],ctrl-],ctrl-]"
# The keys must come within so long: who types them otherwise means the job.
KEYS_SECONDS = 1.0
# How long the end waits for what was typed last.
LAST_SECONDS = 2.0
# Of a terminal that does not tell its size.
ROWS, COLUMNS = 24, 80
# Waits for its stdin to end, as it does with us, and puts the terminal back.
_WATCHER = "trap '' INT HUP TERM TTOU; cat >/dev/null; stty \"$0\" <&1"


class Keys(click.ParamType[bytes]):
    """Keys as docker(1) has them: `ctrl-p,ctrl-q`, `ctrl-]`, `x`; empty for none."""

    name = "keys"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the bytes that a terminal sends for them."""
        if isinstance(value, bytes):
            return value
        return b"".join(self._key(one, param, ctx) for one in str(value).split(",") if one)

    def _key(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        character = text.removeprefix("ctrl-").upper()
        if text.startswith("ctrl-") and len(character) == 1 and "@" <= character <= "_":
            return bytes([ord(character) - ord("@")])
        if len(text) == 1 and text.isascii():
            return text.encode()
        return self.fail(f"{text!r} is no key: say ctrl-X, or a letter", param, ctx)


detach_keys_option = click.option(
    "--detach-keys",
    type=Keys(),
    default=DETACH_KEYS,
    show_default=True,
    metavar="KEYS",
    help="On a terminal, leave the job and let it go on; within a second.",
)


def is_terminal(descriptor: int = STDIN) -> bool:
    """Whether it is one, and can pass on every key; those of Windows cannot."""
    return os.isatty(descriptor) and importlib.util.find_spec("termios") is not None


def size() -> tuple[int, int]:
    """Rows and columns of the user's terminal."""
    for descriptor in (STDIN, STDOUT, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            if rows and columns:
                return rows, columns
    return ROWS, COLUMNS


def has_something() -> bool:
    """Whether stdin is a pipe or a file in which something waits; nothing is read."""
    if is_terminal():
        return False
    try:
        import fcntl
        import struct
        import termios

        (waiting,) = struct.unpack("i", fcntl.ioctl(STDIN, termios.FIONREAD, b"\0\0\0\0"))
    except (ImportError, OSError):
        return False
    return int(waiting) > 0


@contextmanager
def raw() -> Iterator[None]:
    """Have the terminal pass on every key, within the block; put it back whatever happens.

    Also when this process is killed: another one waits for that.
    """
    import termios
    import tty

    before = termios.tcgetattr(STDIN)
    with _put_back_if_killed() as watcher:
        tty.setraw(STDIN, termios.TCSADRAIN)
        try:
            yield
        finally:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
            watcher.kill()


@contextmanager
def each_key() -> Iterator[None]:
    """Have the terminal give each key at once, and show none, within the block.

    It is put back as with `raw`; the key that interrupts goes on doing so.
    """
    import termios
    import tty

    before = termios.tcgetattr(STDIN)
    with _put_back_if_killed() as watcher:
        tty.setcbreak(STDIN, termios.TCSADRAIN)
        try:
            yield
        finally:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
            watcher.kill()


@contextmanager
def _put_back_if_killed() -> "Iterator[subprocess.Popen[bytes]]":
    saved = subprocess.run(
        ["stty", "-g"], stdin=STDIN, capture_output=True, check=True, text=True
    ).stdout.strip()
    watcher = subprocess.Popen(
        ["sh", "-c", _WATCHER, saved],
        stdin=subprocess.PIPE,
        stdout=STDIN,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    with watcher:
        yield watcher


class Keyboard:
    """Reads stdin in a thread of its own, and has it sent in another.

    `left` is called once when the user types the keys that leave the job, or their
    terminal goes; `failed` with what ends the sending.
    """

    def __init__(
        self,
        sender: "InputSender",
        *,
        keys: bytes,
        left: Callable[[], None],
        failed: Callable[[ClientError], None],
    ) -> None:
        self._sender = sender
        self._terminal = is_terminal()
        self._keys = keys if self._terminal else b""
        self._left = left
        self._failed = failed
        self._woken, self._wake = os.pipe()
        self._typed: list[tuple[float, int]] = []
        self._sending: threading.Thread | None = None

    def begin(self) -> None:
        """Do so, until there is nothing more to read or to send, or `stop`."""
        self._sending = threading.Thread(target=self._send, daemon=True)
        self._sending.start()
        threading.Thread(target=self._read, daemon=True).start()

    def resized(self, *, redraw: bool = False) -> None:
        """The job's terminal is to have the size of the user's.

        With `redraw` it has another for a moment, so that a program that fills it
        shows everything again.
        """
        rows, columns = size()
        if redraw:
            self._sender.resize(rows, columns + 1)
        self._sender.resize(rows, columns)

    def stop(self) -> None:
        """Read nothing more: it is somebody else's. What was read is sent, within a moment."""
        os.write(self._wake, b"!")
        self._sender.close()
        if self._sending is not None:
            self._sending.join(LAST_SECONDS)

    def _send(self) -> None:
        try:
            self._sender.run()
        except ClientError as error:
            self._failed(error)

    def _read(self) -> None:
        while self._is_next():
            try:
                data = os.read(STDIN, READ_BYTES)
            except OSError:
                # The terminal is gone (EIO).
                self._left()
                return
            if not data and self._terminal:
                self._left()
                return
            if not data:
                self._sender.end()
                self._sender.close()
                return
            if self._leaves(data):
                self._sender.leave()
                self._left()
                return
            if not self._sender.send(data):
                return

    def _is_next(self) -> bool:
        """Wait for something to read; whether it is for us."""
        if sys.platform == "win32":
            # select(2) is for sockets there: what is read after `stop` is lost.
            return True
        readable, _, _ = select.select([STDIN, self._woken], [], [])
        return self._woken not in readable

    def _leaves(self, data: bytes) -> bool:
        """Whether the keys that leave are complete with this.

        They are passed on until then: none of them is taken away from the job.
        """
        if not self._keys:
            return False
        now = time.monotonic()
        self._typed += [(now, key) for key in data[-len(self._keys) :]]
        self._typed = self._typed[-len(self._keys) :]
        typed = bytes(key for when, key in self._typed if now - when <= KEYS_SECONDS)
        return typed == self._keys
