"""Messages between the keeper and its children: one JSON array a packet, with descriptors.

They travel over AF_UNIX SOCK_SEQPACKET socket pairs, which keep message
boundaries, carry descriptors (SCM_RIGHTS, unix(7)) and leave what was sent
readable after the sender has died. JSON, because the keeper imports next to
nothing: what it has loaded nobody can upgrade while jobs run.
"""

import array
import contextlib
import json
import os
import socket
from typing import NamedTuple

MAX_BYTES = 65536
MAX_DESCRIPTORS = 16

Field = str | int | float
Packet = tuple[Field, ...]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected, blocking SOCK_SEQPACKET sockets, closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Line(NamedTuple):
    """A child's end of its connection to the keeper: a packet socket and a bell.

    The keeper does not wake up for packets but for a byte on the bell, or for
    reasons of its own: a start must not pay for waking a process that has
    nothing urgent to do. What has been sent is in the kernel and survives us.

    `listening` are the sockets on which the service before listened.
    """

    control: socket.socket
    bell: socket.socket
    # A keeper of before an upgrade sends no third field.
    listening: tuple[socket.socket, ...] = ()

    def send(
        self, packet: "Packet", descriptors: tuple[int, ...] = (), *, urgent: bool = False
    ) -> None:
        """Send a packet, blocking while the socket is full; ring when it is `urgent`."""
        try:
            _send(self.control, packet, descriptors, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.bell.send(b"!")
            send(self.control, packet, descriptors)
        if urgent:
            self.bell.send(b"!")


def send(sock: socket.socket, packet: Packet, descriptors: tuple[int, ...] = ()) -> None:
    """Send one packet; the descriptors are copied, the caller's stay open.

    Raises BlockingIOError when a non-blocking socket is full, and
    BrokenPipeError or ConnectionResetError when the peer is gone.
    """
    _send(sock, packet, descriptors, 0)


def _send(sock: socket.socket, packet: Packet, descriptors: tuple[int, ...], flags: int) -> None:
    # Not socket.send_fds, which takes flags and ignores them (python/cpython issue 107898).
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    sock.sendmsg([json.dumps(packet).encode()], rights, flags)


def receive(sock: socket.socket) -> tuple[Packet, tuple[int, ...]] | None:
    """The next packet and its descriptors (closed on exec, now the caller's), or None at the end.

    Raises BlockingIOError when a non-blocking socket has none, and ValueError for
    what is no packet, whose descriptors are closed.
    """
    size = array.array("i").itemsize
    try:
        data, ancillary, _, _ = sock.recvmsg(
            MAX_BYTES, socket.CMSG_SPACE(MAX_DESCRIPTORS * size), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % size])
    if not data:
        close_all(tuple(descriptors))
        return None
    try:
        packet = json.loads(data)
    except (ValueError, RecursionError):
        packet = None
    if not isinstance(packet, list):
        close_all(tuple(descriptors))
        raise ValueError("not a packet")  # noqa: TRY004 # what others say is no type of ours
    return tuple(packet), tuple(descriptors)


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close each; one that is closed already is none of our business."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
