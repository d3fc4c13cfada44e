"""One connection between its handshake and its end."""

import asyncio
import logging
import os
import socket
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobworker.authz.identity import Identity
from jobworker.grpc_api.edge.client import Client
from jobworker.grpc_api.edge.output_connection import OutputConnection
from jobworker.grpc_api.edge.peers import peer_of
from jobworker.grpc_api.edge.relay import Relay
from jobworker.grpc_api.errors import BackendExposed, BackendUnavailable

_log = logging.getLogger(__name__)

# How long gRPC may take to end a connection whose client has ended it.
_BACKEND_SECONDS = 5.0
# Timers run on the monotonic clock and certificates by the calendar, which may
# be set meanwhile.
_LONGEST_TIMER = 3600.0


@dataclass(frozen=True)
class Connection:
    """A connection after its handshake, as others may see it.

    `peer` is what gRPC reports for it, of an output connection nothing;
    `address` is the client's host:port, and
    `identity` None where the certificate names none. `serial` is the
    certificate's, in lower-case hexadecimal.
    """

    peer: str
    address: str
    identity: Identity | None
    serial: str
    since: datetime


class Live:
    """A connection that is being served, for those who may end it."""

    def __init__(self, relay: Relay | OutputConnection, client: Client, address: str) -> None:
        identity = client.identity if isinstance(client.identity, Identity) else None
        peer = peer_of(relay.name) if relay.name else ""
        self.connection = Connection(peer, address, identity, client.serial, datetime.now(UTC))
        self.client = client
        self._relay = relay

    @property
    def open(self) -> bool:
        """Whether it has not ended; one that was cut has, before its task knows."""
        return not self._relay.ended.is_set()

    def cut(self, reason: str) -> None:
        """End it at once, for a reason that completes `ended ...: `."""
        _log.warning(
            "ended the connection of %s from %s: %s",
            self.client.name,
            self.connection.address,
            reason,
        )
        self._relay.cut()

    async def run(self) -> None:
        """Wait until either side ends it, it is cut, or its certificate expires."""
        await self._until_input_ends()
        await happens(self._relay.ended, _BACKEND_SECONDS)

    async def _until_input_ends(self) -> None:
        expires = self.client.certificate.not_valid_after_utc
        while (left := (expires - datetime.now(UTC)).total_seconds()) > 0:
            if await happens(self._relay.input_ended, min(left, _LONGEST_TIMER)):
                return
        self.cut(f"its certificate expired at {expires:%Y-%m-%d %H:%M:%S} UTC")


def check_private(backend: Path) -> None:
    """Check that nobody but this process's user can reach the socket in its directory.

    Raises:
        BackendExposed: Others can enter the directory, or own it.
    """
    directory = backend.parent
    found = directory.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise BackendExposed(
            f"{directory}, where gRPC listens without TLS, must belong to this user alone "
            f"(owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run `chmod 700 {directory}` as user {os.geteuid()}"
        )


def connect(backend: Path, name: str) -> socket.socket:
    """Connect to gRPC's unix socket from the abstract address `name`.

    Raises:
        BackendUnavailable: It is not there, or its backlog is full.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.bind(f"\0{name}")
        connection.connect(str(backend))
    except OSError as error:
        connection.close()
        raise BackendUnavailable(
            f"cannot connect to gRPC at {backend}: {error.strerror}"
        ) from error
    return connection


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so long; whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
