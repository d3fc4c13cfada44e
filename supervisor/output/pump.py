"""Taking turns among the pipes of all jobs, so that one that floods starves nobody."""

import asyncio
import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

# How long one turn of the event loop may move bytes before it looks at the
# other things that want attention, such as a start.
TURN_SECONDS = 0.0002
# The most one pipe may move before the next one's turn.
SHARE_BYTES = 256 * 1024

# Called with the descriptor; says whether there may be more to move.
Move = Callable[[int], bool]


class _Pipe(NamedTuple):
    descriptor: int
    move: Move


class Pump:
    """Watches pipes and calls their `move` in fair turns within the running event loop.

    Pipes are watched edge-triggered (epoll(7)) in an epoll of their own, which
    the event loop watches as one descriptor.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll(select.EPOLL_CLOEXEC)
        self._pipes: dict[int, _Pipe] = {}
        self._ready: deque[_Pipe] = deque()
        self._queued: set[int] = set()
        self._scheduled = False
        loop.add_reader(self._epoll.fileno(), self._wake)

    def add(self, descriptor: int, move: Move) -> None:
        """Watch the read end of a pipe; what is in it already counts as new."""
        os.set_blocking(descriptor, False)
        self._pipes[descriptor] = _Pipe(descriptor, move)
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLET)

    def again(self, descriptor: int) -> None:
        """Have another go at a pipe, such as one that could not be moved for want of space."""
        pipe = self._pipes.get(descriptor)
        if pipe is not None and descriptor not in self._queued:
            self._queued.add(descriptor)
            self._ready.append(pipe)
            self._schedule()

    def remove(self, descriptor: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._pipes.pop(descriptor, None) is not None:
            # Another pipe may have this descriptor before the turn comes.
            self._queued.discard(descriptor)
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop watching all."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._pipes.clear()
        self._ready.clear()

    def _wake(self) -> None:
        for descriptor, _ in self._epoll.poll(0, 256):
            self.again(descriptor)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        deadline = time.monotonic() + TURN_SECONDS
        try:
            while self._ready and time.monotonic() < deadline:
                self._move(self._ready.popleft())
        finally:
            # Also when one has failed: the others are not to wait for it.
            if self._ready:
                self._schedule()

    def _move(self, pipe: _Pipe) -> None:
        if self._pipes.get(pipe.descriptor) is not pipe:
            return
        self._queued.discard(pipe.descriptor)
        if pipe.move(pipe.descriptor):
            self.again(pipe.descriptor)
