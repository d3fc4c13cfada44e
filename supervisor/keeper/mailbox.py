"""One end of a packet socket for an event loop: posting never blocks."""

import contextlib
import errno
import os
import selectors
import socket
from collections import deque

from jobworker.supervisor.keeper import packets

# What the kernel may say at one moment and not at another (send(2), unix(7): ETOOMANYREFS is
# for the descriptors that all of the user's processes have under way, epoll_ctl(2)).
_MAY_NOT_NOW = (errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.ETOOMANYREFS)


class Mailbox:
    """Owns a packet socket and its place in a selector, whose data is the mailbox itself.

    With a `bell` (see packets.Line) the selector tells of that, in place of
    packets. A peer that is gone swallows what is posted; `receive` then tells
    the end.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        bell: socket.socket | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._bell = bell
        self._selector = selector
        self._waiting: deque[tuple[packets.Packet, tuple[int, ...], bool]] = deque()
        self._broken = False
        # The system refused something; no event will tell when it is to be tried again.
        self.refused = False
        if bell is not None:
            bell.setblocking(False)
        self._selector.register(bell or sock, selectors.EVENT_READ, self)

    def post(
        self, packet: packets.Packet, descriptors: tuple[int, ...] = (), *, close: bool = False
    ) -> None:
        """Send when the socket has room, in order; `close` the descriptors here after that."""
        self._waiting.append((packet, descriptors, close))
        if len(self._waiting) == 1:
            self.flush()

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent."""
        return not self._waiting

    def flush(self) -> None:
        """Send what there is room for, and what was `refused` before."""
        self.refused = False
        try:
            self._flush()
        except OSError as error:
            if error.errno not in _MAY_NOT_NOW:
                raise
            self.refused = True

    def _flush(self) -> None:
        while self._waiting:
            packet, descriptors, close = self._waiting[0]
            if not self._broken:
                try:
                    packets.send(self._socket, packet, descriptors)
                except BlockingIOError:
                    break
                except (BrokenPipeError, ConnectionResetError):
                    self._broken = True
            if close:
                packets.close_all(descriptors)
            self._waiting.popleft()
        self._await_room(wanted=bool(self._waiting))

    def _await_room(self, *, wanted: bool) -> None:
        if self._bell is None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
            self._selector.modify(self._socket, events, self)
        elif wanted != (self._socket in self._selector.get_map()):
            if wanted:
                self._selector.register(self._socket, selectors.EVENT_WRITE, self)
            else:
                self._selector.unregister(self._socket)

    def silence(self) -> None:
        """The bell has been heard."""
        if self._bell is not None:
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)

    def receive(self) -> tuple[packets.Packet, tuple[int, ...]] | None:
        """The next packet and its descriptors; None at the end. Raises BlockingIOError."""
        try:
            return packets.receive(self._socket)
        except OSError as error:
            if error.errno not in _MAY_NOT_NOW:
                raise
            self.refused = True
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def close(self) -> None:
        """Give the socket up; what still waits is not sent."""
        self._await_room(wanted=False)
        self._selector.unregister(self._bell or self._socket)
        self._socket.close()
        if self._bell is not None:
            self._bell.close()
        for _, descriptors, close in self._waiting:
            if close:
                with contextlib.suppress(OSError):
                    packets.close_all(descriptors)
        self._waiting.clear()
