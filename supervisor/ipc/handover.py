"""Handing an open descriptor to a client, beside the pipe, which carries bytes alone.

The supervisor offers it under a token, which the client is told over the pipe and
presents on a unix socket in the state directory (SCM_RIGHTS, unix(7)). Nobody else
can connect to that but the supervisor's user and the group of those who may read output.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

NAME = "handover"
_TOKEN_BYTES = 32
_TAKEN = b"taken"
# How long an offer stands, and how long who has connected may take to say what for.
OFFER_SECONDS = 10.0
# Who is connected and has said nothing yet.
_MOST_WAITING = 64


class Handovers:
    """What is offered, in a directory of the supervisor's; it listens from the first offer on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path, readers: int) -> None:
        """`readers` is the ID of the group that may come for something, -1 for none."""
        self._loop = loop
        self._directory = directory
        self._readers = readers
        self._listener: socket.socket | None = None
        self._offers: dict[str, int] = {}
        self._waiting: set[socket.socket] = set()

    def offer(self, descriptor: int) -> str:
        """Offer a descriptor, which is closed here in any case; the token. Raises OSError."""
        try:
            if self._listener is None:
                self._listener = self._listen()
        except OSError:
            os.close(descriptor)
            raise
        token = secrets.token_hex(_TOKEN_BYTES)
        self._offers[token] = descriptor
        self._loop.call_later(OFFER_SECONDS, self._withdraw, token)
        return token

    def _withdraw(self, token: str) -> None:
        descriptor = self._offers.pop(token, None)
        if descriptor is not None:
            os.close(descriptor)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _address(self._directory) as address:
                # A supervisor of before had one of its own.
                (self._directory / NAME).unlink(missing_ok=True)
                listener.bind(address)
                if self._readers >= 0:
                    os.chown(address, -1, self._readers)
                os.chmod(address, 0o660)  # noqa: PTH101 - there is no Path for it
            listener.listen(_MOST_WAITING)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        self._loop.add_reader(listener, self._accept, listener)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            # It has gone again, or there is no descriptor for it: it tries again.
            return
        if len(self._waiting) >= _MOST_WAITING:
            client.close()
            return
        client.setblocking(False)
        self._waiting.add(client)
        self._loop.add_reader(client, self._hand_over, client)
        self._loop.call_later(OFFER_SECONDS, self._dismiss, client)

    def _hand_over(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # Descriptors that come with it are not taken over.
            token = client.recv(2 * _TOKEN_BYTES + 1).decode("ascii", "replace")
            if token in self._offers:
                socket.send_fds(client, [_TAKEN], [self._offers[token]])
                self._withdraw(token)
        self._dismiss(client)

    def _dismiss(self, client: socket.socket) -> None:
        if client in self._waiting:
            self._waiting.discard(client)
            self._loop.remove_reader(client)
            client.close()

    def close(self) -> None:
        """Offer nothing any more."""
        for client in list(self._waiting):
            self._dismiss(client)
        for token in list(self._offers):
            self._withdraw(token)
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()


def collect(directory: Path, token: str) -> int:
    """Come for what is offered under a token. Blocks for a moment; raises OSError if it is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(OFFER_SECONDS)
        with _address(directory) as address:
            client.connect(address)
        client.send(token.encode())
        said, descriptors, _, _ = socket.recv_fds(client, len(_TAKEN), 1, socket.MSG_CMSG_CLOEXEC)
        if said == _TAKEN and descriptors:
            return descriptors[0]
    raise ConnectionResetError("what was offered is gone")


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """Where it is; however long the directory's path is, that is short enough (unix(7))."""
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{NAME}"
    finally:
        os.close(opened)
