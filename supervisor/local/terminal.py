"""The terminal that a job runs on: its own end of it is here, and what it shows goes into a pipe.

From that pipe it is recorded as any job's stdout is. Bytes move from the terminal to
the pipe within one system call (splice(2)), and the keeper has both: whoever dies, none
are lost.
"""

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
from typing import NamedTuple

from jobworker.supervisor.host.users import Account
from jobworker.supervisor.output.pump import SHARE_BYTES

# struct winsize: rows, columns, and two that nobody uses.
_SIZE = struct.Struct("HHHH")
# What a program's last words may take up, beyond what the pipe holds until then.
_LAST_WORDS_BYTES = 256 * 1024
# Where the attributes of a terminal have its special characters (termios(3)).
_CHARACTERS = 6
# What a login gives a terminal of a user's: they may read and write it, others may not.
_MODE = 0o600


class Ends(NamedTuple):
    """The two ends of a new terminal."""

    master: int
    slave: int


def new_terminal(rows: int, columns: int, account: Account | None) -> Ends:
    """A terminal of that size, which belongs to the user (None: us). Raises OSError."""
    master, slave = os.openpty()
    try:
        set_size(slave, rows, columns)
        if account is not None:
            os.fchown(slave, account.uid, account.gid)
            os.fchmod(slave, _MODE)
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return Ends(master, slave)


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set its size; programs on it are told by SIGWINCH if it is another (ioctl_tty(2))."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, _SIZE.pack(rows, columns, 0, 0))


def end_mark(terminal: int) -> bytes:
    """The character that tells the end of input now, most often Ctrl-D (termios(3), VEOF)."""
    characters = termios.tcgetattr(terminal)[_CHARACTERS]
    return bytes(characters[termios.VEOF])


class Screen:
    """Owns the master, and the write end of the pipe that what is shown goes into."""

    def __init__(self, master: int, pipe: int) -> None:
        self.master = master
        self._pipe = pipe
        os.set_blocking(master, False)
        os.set_blocking(pipe, False)

    def move(self) -> bool:
        """Move some of what is shown into the pipe; whether there may be more.

        Raises BlockingIOError where the pipe is full: it is to be tried again, and
        EOFError when nobody has the terminal any more.
        """
        try:
            os.splice(self.master, self._pipe, SHARE_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            if _has_room(self._pipe):
                return False
            raise
        except OSError as error:
            if error.errno == errno.EIO:
                raise EOFError from None
            raise
        return True

    def move_last_words(self) -> None:
        """The main process has ended: move all that it has shown. Raises EOFError as `move`."""
        with contextlib.suppress(OSError):
            size = fcntl.fcntl(self._pipe, fcntl.F_GETPIPE_SZ)
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, size + _LAST_WORDS_BYTES)
        with contextlib.suppress(BlockingIOError):
            while self.move():
                pass

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal."""
        set_size(self.master, rows, columns)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.master)
        os.close(self._pipe)


def _has_room(pipe: int) -> bool:
    """Whether a pipe takes more (poll(2), POLLOUT)."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(0))
