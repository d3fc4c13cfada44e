"""A job's input on its way: from who sends it into the inbox, from there into the job's stdin."""

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from jobworker.supervisor.engine import InputAnswer
from jobworker.supervisor.errors import Exhausted, SupervisorError, words
from jobworker.supervisor.host.disk_space import FreeSpace
from jobworker.supervisor.job import InputPiece, Received
from jobworker.supervisor.local.inbox import Inbox
from jobworker.supervisor.local.terminal import end_mark

# How long input waits for room before its sender is told how far it got.
PATIENCE_SECONDS = 5.0
# How much more than the job has got is taken, beside one message: what is in its pipe
# counts as got.
_AHEAD_BYTES = 64 * 1024


@dataclass(eq=False)
class _Waiting:
    piece: InputPiece
    answer: InputAnswer
    overdue: asyncio.TimerHandle | None = None

    @property
    def is_question(self) -> bool:
        return not (self.piece.data or self.piece.end)


class Intake:
    """Owns the inbox, and the descriptor that leads to the job: its stdin, or its terminal.

    `spent` is called once when the job is to find the end of its input, or takes no
    more: then the descriptor has been closed here, and is to be elsewhere.
    Where no room is made for it by the job's reading, input is stored in what there is of
    the `store`. A terminal is told the end by a character.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sink: int,
        inbox: Inbox,
        *,
        store: FreeSpace | None,
        on_terminal: bool,
        spent: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sink = sink
        self._inbox = inbox
        self._store = store
        self._on_terminal = on_terminal
        self._spent = spent
        self._waiting: deque[_Waiting] = deque()
        self._listening = False
        os.set_blocking(sink, False)

    def resume(self) -> None:
        """Go on where whoever had it before stopped."""
        self._push()

    def take(self, piece: InputPiece, answer: InputAnswer) -> None:
        """Take some input, then answer: when it has been received, or PATIENCE_SECONDS later.

        Raises ValueError for a piece that leaves a gap.
        """
        received = self._inbox.received
        if piece.offset is not None and piece.offset > received:
            raise ValueError(f"the job has been sent {received} bytes of input")
        waiting = _Waiting(piece, answer)
        self._waiting.append(waiting)
        self._admit()
        if waiting in self._waiting:
            waiting.overdue = self._loop.call_later(PATIENCE_SECONDS, self._answer, waiting)

    def _admit(self) -> None:
        """Receive what waits, as far as there is room."""
        while self._waiting:
            first = self._waiting[0]
            if not (self._over or self._has_room() or first.is_question):
                return
            try:
                if not self._over:
                    self._receive(first.piece)
            except OSError as error:
                why = f"the job's input cannot be kept: {words(error.errno or 0)}"
                self._answer(first, Exhausted(why))
            else:
                self._answer(first)

    @property
    def _over(self) -> bool:
        return self._sink < 0 or self._inbox.complete

    def _has_room(self) -> bool:
        return (
            self._store is not None or self._inbox.received - self._inbox.handed_on <= _AHEAD_BYTES
        )

    @property
    def stored_bytes(self) -> int:
        """How much of the disk what has been received takes."""
        return 0 if self._store is None else self._inbox.received

    def _receive(self, piece: InputPiece) -> None:
        if self._store is not None:
            # Some is left for what must go on when somebody has filled the disk.
            if self._store.left() < len(piece.data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._store.take(len(piece.data))
        offset = self._inbox.received if piece.offset is None else piece.offset
        received = self._inbox.put(offset, piece.data)
        if piece.end and received == offset + len(piece.data):
            self._end(received)
        self._push()

    def _end(self, received: int) -> None:
        if self._on_terminal:
            self._inbox.put(received, end_mark(self._sink))
        else:
            self._inbox.end()

    def _answer(self, waiting: _Waiting, error: SupervisorError | None = None) -> None:
        self._waiting.remove(waiting)
        if waiting.overdue is not None:
            waiting.overdue.cancel()
        waiting.answer(error or Received(self._inbox.received, self._over))

    def _push(self) -> None:
        """Hand on what the job takes now, and the rest when it takes more."""
        left = True
        try:
            while left and self._sink >= 0:
                left = self._inbox.hand_on(self._sink)
        except BlockingIOError:
            left = True
        except OSError:
            # It has closed its stdin, or all that could read it have ended.
            self._close()
            left = False
        if self._store is None:
            with contextlib.suppress(OSError):
                self._inbox.forget_handed_on()
        if not left and self._sink >= 0 and self._inbox.complete:
            self._close()
        self._listen(wanted=left and self._sink >= 0)

    def _room(self) -> None:
        self._push()
        self._admit()

    def _listen(self, *, wanted: bool) -> None:
        if wanted and not self._listening:
            self._loop.add_writer(self._sink, self._room)
        elif not wanted and self._listening and self._sink >= 0:
            self._loop.remove_writer(self._sink)
        self._listening = wanted and self._sink >= 0

    def _close(self) -> None:
        if self._listening:
            self._loop.remove_writer(self._sink)
            self._listening = False
        os.close(self._sink)
        self._sink = -1
        self._spent()

    def close(self, *, ended: bool) -> None:
        """Let go of everything, and tell who waits; the job has `ended`, or goes on without us."""
        if self._sink >= 0:
            if self._listening:
                self._loop.remove_writer(self._sink)
                self._listening = False
            os.close(self._sink)
            self._sink = -1
        self._admit()
        if ended:
            # The keeper has it, too, for as long as it has the job.
            with contextlib.suppress(OSError):
                self._inbox.empty()
        self._inbox.close()
