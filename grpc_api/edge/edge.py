"""The TLS edge: lets verified clients through to gRPC, and knows who they are.

gRPC's own TLS can be told neither the version nor the suite (BoringSSL fixes
those of TLS 1.3), so it listens without any on a unix socket, in a directory
that only this process's user can enter, and the edge relays to it.
"""

import asyncio
import logging
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import cast

from jobworker.authz.identity import Identity, IdentityError
from jobworker.grpc_api.edge.admission import Admission, EdgeLimits
from jobworker.grpc_api.edge.client import Client, client_of
from jobworker.grpc_api.edge.connection import (
    Connection,
    Live,
    check_private,
    connect,
    happens,
)
from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.edge.crowd_log import CrowdLog
from jobworker.grpc_api.edge.farewell import farewell
from jobworker.grpc_api.edge.frames import AnyBytes, ClientFrames
from jobworker.grpc_api.edge.handshake import Handshake
from jobworker.grpc_api.edge.listener import Listener, listen
from jobworker.grpc_api.edge.output_connection import OutputConnection
from jobworker.grpc_api.edge.peers import Guest, Peers
from jobworker.grpc_api.edge.relay import Relay
from jobworker.grpc_api.edge.session import TlsSession
from jobworker.grpc_api.edge.tls import FOR_CLIENTS, HTTP2, OUTPUT, load_server_tls
from jobworker.grpc_api.errors import BackendUnavailable, HandshakeRefused, TurnedAway

_log = logging.getLogger(__name__)

# Takes a connection, who is at its other end, and their address.
ServeOutput = Callable[[OutputConnection, Guest, str], Coroutine[None, None, None]]

# Read at once from either side, and so the longest write to the other.
_READ_BYTES = 256 * 1024


class Edge:
    """Serves TLS on any number of addresses, in the event loop it is started in.

    `backend` is the unix socket that gRPC, or who else speaks one of the
    `protocols`, listens on. Everything here belongs to that one loop: no method
    may be called from another thread.
    """

    # Serves output connections, up to and with their last frame.
    _serve_output: ServeOutput | None = None

    def __init__(
        self,
        files: TlsFiles,
        backend: Path,
        limits: EdgeLimits | None = None,
        protocols: tuple[str, ...] = FOR_CLIENTS,
    ) -> None:
        """Read the files.

        Raises:
            TlsError: They cannot be served with; see `load_server_tls`.
        """
        self._files = files
        self._backend = backend
        self._limits = limits or EdgeLimits()
        self._protocols = protocols
        self._tls = load_server_tls(files, protocols)
        # Set at each reload; who has seen that clears it.
        self.reloaded = asyncio.Event()
        self._peers = Peers()
        # Connections refused since the start, by reason.
        self.refused: Counter[str] = Counter()
        # What any number of clients can have the log say.
        self._refusals = CrowdLog("refused connections", logging.INFO)
        self._nameless = CrowdLog("certificates that name nobody", logging.WARNING)
        self._too_many = CrowdLog("turned away clients", logging.WARNING)
        self._abuses = CrowdLog("ended connections", logging.WARNING)
        self._admission = Admission(self._limits)
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # Oldest first; those not relaying, which give way when there are too many.
        self._passing: dict[asyncio.Task[None], None] = {}
        # Those that gRPC has not answered yet, and what tells that there are none.
        self._arriving: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Event | None = None
        self._relays: set[Relay] = set()
        # Calls that were begun on connections that have ended.
        self._streams = 0
        self._live: dict[Live, None] = {}
        # One for all: what is read is used up before the next read.
        self._buffer = memoryview(bytearray(_READ_BYTES))

    async def start(
        self, host: str, port: int, kept: Iterable[socket.socket] = ()
    ) -> tuple[str, int]:
        """Listen on one more address and return it; port 0 takes a free one.

        A socket of `kept` that listens there is taken over, as a copy.

        Raises:
            ListenError: The address cannot be listened on.
            BackendExposed: Others can reach the socket gRPC listens on.
        """
        check_private(self._backend)
        _warn_of_few_descriptors(self._limits)
        listener = Listener(await listen(host, port, kept), self._accepted)
        self._listeners.append(listener)
        return listener.address

    def serve_output(self, serve: ServeOutput) -> None:
        """Have connections that carry output without gRPC served by this from now on."""
        self._serve_output = serve

    def listening(self) -> tuple[int, ...]:
        """The descriptors of the sockets listened on."""
        return tuple(listener.fileno() for listener in self._listeners)

    async def close(self, seconds: float) -> None:
        """Accept no more, and wait until gRPC knows those that were; at most so long.

        A client whose handshake is cut short takes that for a failed attempt to
        connect. Calls that begin later on connections there are do not reach
        gRPC; when it ends, it tells the client that they did not.
        """
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._closing = asyncio.Event()
        if self._arriving and not await happens(self._closing, seconds):
            _log.info("ending with %d connections that were not complete", len(self._arriving))
        for relay in self._relays:
            relay.frames.close()

    @property
    def streams(self) -> int:
        """How many calls gRPC has been handed since the start."""
        return self._streams + sum(relay.frames.streams for relay in self._relays)

    async def stop(self, grace: float) -> None:
        """Accept no more, and end what has not ended by itself after `grace` seconds.

        gRPC, told to stop at the same time, ends the connections as their last
        calls do.
        """
        if self._listeners:
            await self.close(0)
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=grace)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        for crowd in (self._refusals, self._nameless, self._too_many, self._abuses):
            crowd.sum_up()

    def identity_of(self, peer: str) -> Identity | None:
        """Return who is behind `grpc.ServicerContext.peer()`, or None if nobody is known to be.

        None is for callers that did not come through the edge. To be asked as a
        call begins: a client that has gone is known no more.

        Raises:
            IdentityError: The client's certificate is good but names no identity.
            TurnedAway: The client has more connections than it may.
        """
        return self._peers.identity_of(peer)

    def address_of(self, peer: str) -> str:
        """Return the host:port of a client that `identity_of` knows, "" of one that has gone."""
        return self._peers.address_of(peer)

    def connections(self) -> tuple[Connection, ...]:
        """Return the connections being relayed now, oldest first."""
        return tuple(live.connection for live in self._open())

    def reload(self) -> int:
        """Read the files again: new connections are judged by them, and the open ones too.

        Returns the number of open connections that were ended.

        Raises:
            TlsError: The files cannot be served with, and nothing has changed.
        """
        formerly, self._tls = self._tls, load_server_tls(self._files, self._protocols)
        self.reloaded.set()
        ended = 0
        for live in self._open():
            reason = self._tls.trust.objection(live.client.certificate, formerly.trust)
            if reason is not None:
                live.cut(reason)
                ended += 1
        return ended

    def revoked(self, serial: str) -> bool:
        """Whether a certificate of this serial number (hex) was taken back."""
        return self._tls.trust.revokes_serial(serial)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses that the certificate served with is for."""
        return self._tls.hosts

    @property
    def expiries(self) -> Mapping[str, datetime]:
        """When what is served with ends: `certificate`, `ca`, and `crl` where there is one."""
        return self._tls.expiries

    def close_serial(self, serial: str, reason: str) -> int:
        """End every connection of the certificate with this serial number, hexadecimal.

        Returns how many there were. The certificate itself may connect again.
        """
        number = int(serial, 16)
        matching = [
            live for live in self._open() if live.client.certificate.serial_number == number
        ]
        for live in matching:
            live.cut(reason)
        return len(matching)

    def _open(self) -> list[Live]:
        return [live for live in self._live if live.open]

    def _accepted(self, accepted: socket.socket, address: str) -> None:
        if len(self._passing) >= self._limits.handshakes:
            oldest = next(iter(self._passing))
            del self._passing[oldest]
            oldest.cancel()
            self.refused["gave-way"] += 1
        task = asyncio.get_running_loop().create_task(self._serve(accepted, address))
        self._tasks.add(task)
        self._passing[task] = None
        self._arriving.add(task)
        task.add_done_callback(self._served)
        # A task that is cancelled before its first step closes nothing itself.
        task.add_done_callback(lambda _: accepted.close())

    def _arrived(self, task: asyncio.Task[None]) -> None:
        """A connection has got to where it is served, or has ended."""
        self._arriving.discard(task)
        if self._closing is not None and not self._arriving:
            self._closing.set()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._arrived(task)
        self._passing.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection ended by a fault of the server", exc_info=error)

    async def _serve(self, accepted: socket.socket, address: str) -> None:
        """One connection, from its first byte to its last."""
        session = TlsSession(self._tls.context, self._protocols)
        handshake = Handshake(session, self._buffer)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: handshake, accepted
        )
        try:
            last_words = await self._converse(session, handshake, transport, address)
            await farewell(transport, last_words, self._buffer, self._limits.farewell_seconds)
        finally:
            transport.abort()

    async def _converse(
        self, session: TlsSession, handshake: Handshake, transport: asyncio.Transport, address: str
    ) -> bytes:
        """Everything but the last words, which are returned."""
        try:
            client = await self._meet(session, handshake, address)
            await self._admit(session, transport, client, address)
        except HandshakeRefused as refusal:
            self.refused["handshake"] += 1
            text = f"refused a connection from {address}: {refusal}"
            self._refusals.tell(text, address, refusal)
        except BackendUnavailable as error:
            _log.error("lost a connection from %s: %s", address, error)
        return session.outgoing() + session.close_notify()

    async def _meet(self, session: TlsSession, handshake: Handshake, address: str) -> Client:
        trust = self._tls.trust
        await handshake.complete(self._limits.handshake_seconds)
        client = client_of(session)
        if isinstance(client.identity, IdentityError):
            text = f"the certificate shown from {address} names nobody: {client.identity}"
            self._nameless.tell(text, address, client.identity)
        # The files may have changed since the handshake began.
        if (reason := self._tls.trust.objection(client.certificate, trust)) is not None:
            raise HandshakeRefused(reason)
        return client

    async def _admit(
        self, session: TlsSession, transport: asyncio.Transport, client: Client, address: str
    ) -> None:
        """Serve a verified client, in the way the handshake agreed on."""
        way = self._output if session.protocol == OUTPUT else self._relay
        try:
            with self._admission.admit(client.name), self._settled():
                async with way(session, transport, client.identity, address) as ends:
                    with self._living(ends, client, address) as live:
                        await live.run()
        except TurnedAway as refusal:
            self._turned_away(client, address, refusal)
            # Long enough for its first calls to be answered with the reason.
            async with way(session, transport, refusal, address) as ends:
                await happens(ends.ended, self._limits.farewell_seconds)

    def _turned_away(self, client: Client, address: str, refusal: TurnedAway) -> None:
        self.refused["limit"] += 1
        text = f"turned away {client.name} from {address}: {refusal}"
        self._too_many.tell(text, address, refusal)

    @contextmanager
    def _living(
        self, ends: Relay | OutputConnection, client: Client, address: str
    ) -> Iterator[Live]:
        live = Live(ends, client, address)
        self._live[live] = None
        try:
            yield live
        finally:
            del self._live[live]

    @asynccontextmanager
    async def _relay(
        self, session: TlsSession, transport: asyncio.Transport, guest: Guest, address: str
    ) -> AsyncIterator[Relay]:
        """Have gRPC, or who else listens there, serve the client."""
        name = self._peers.register(guest, address)
        frames: ClientFrames | AnyBytes = AnyBytes()
        if session.protocol == HTTP2:
            frames = ClientFrames(self._limits.header_bytes, self._limits.idle_frames)
        relay = Relay(
            session,
            transport,
            self._buffer,
            frames,
            name,
            give_up_name=partial(self._peers.forget, name),
            answered=partial(self._arrived, _this_task()),
        )
        try:
            self._relays.add(relay)
            if self._closing is not None:
                relay.frames.close()
            await relay.start(connect(self._backend, name))
            if session.protocol != HTTP2:
                # Who serves it says nothing before it is asked.
                self._arrived(_this_task())
            yield relay
        finally:
            relay.release()
            self._relays.discard(relay)
            self._streams += relay.frames.streams
        if relay.fault is not None:
            self.refused["abuse"] += 1
            text = f"ended a connection from {address}: {relay.fault}"
            self._abuses.tell(text, address, relay.fault)

    @asynccontextmanager
    async def _output(
        self, session: TlsSession, transport: asyncio.Transport, guest: Guest, address: str
    ) -> AsyncIterator[OutputConnection]:
        """Serve the client the output of one job, without gRPC."""
        if self._serve_output is None:
            raise HandshakeRefused("it asks for output without gRPC, which is not served here")
        connection = OutputConnection(session, transport, self._buffer)
        connection.start()
        self._arrived(_this_task())
        serving = asyncio.ensure_future(self._serve_output(connection, guest, address))
        serving.add_done_callback(lambda _: connection.end())
        try:
            yield connection
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        if not serving.cancelled():
            serving.result()

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """Take the current task from among those that give way to new ones."""
        task = _this_task()
        self._passing.pop(task, None)
        try:
            yield
        finally:
            self._passing[task] = None


def _this_task() -> "asyncio.Task[None]":
    return cast("asyncio.Task[None]", asyncio.current_task())


def _warn_of_few_descriptors(limits: EdgeLimits) -> None:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < limits.descriptors:
        _log.warning(
            "this process may open %d files and the limits of connections allow for %d; "
            "raise the one (LimitNOFILE= in systemd, ulimit -n in a shell) or lower the others",
            allowed,
            limits.descriptors,
        )
