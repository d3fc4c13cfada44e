"""How the edge's two sides wait for, end and outlive each other; the test stands in for gRPC."""

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.edge_process import DEADLINE
from tests.support.edge_site import Site, edge_site, ended
from tests.support.key_updates import KeyUpdates

MEGABYTE = 1 << 20
# Nothing can be sent for this long: the other side waits for a reader.
STUCK_SECONDS = 1.0
# The kernel's own buffers of a TCP connection grow to some megabytes: tcp(7).
BUFFERED = 24 * MEGABYTE


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("edge"), service=False) as running:
        yield running


class Ends(NamedTuple):
    """A relayed connection: the client's TLS and the unix socket gRPC would have."""

    client: ssl.SSLSocket
    backend: socket.socket


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE)
        try:
            yield listener
        finally:
            path.unlink()


@pytest.fixture
def listener(site: Site) -> Iterator[socket.socket]:
    with listening(site.edge.backend) as one:
        yield one


@pytest.fixture
def ends(site: Site, listener: socket.socket) -> Iterator[Ends]:
    with site.tls(site.authority.client()) as client:
        backend, _ = listener.accept()
        backend.settimeout(DEADLINE)
        with backend:
            yield Ends(client, backend)


def fill(sender: socket.socket) -> int:
    """Send until the other side takes no more, and return how much it took."""
    sender.setblocking(False)
    piece = bytes(65_536)
    sent = 0
    while select.select([], [sender], [], STUCK_SECONDS)[1]:
        try:
            sent += sender.send(piece)
        except (BlockingIOError, ssl.SSLWantWriteError):
            continue
        assert sent < 100 * MEGABYTE, "the edge takes without end what nobody reads"
    sender.settimeout(DEADLINE)
    return sent


def read(receiver: socket.socket, count: int) -> None:
    while count > 0:
        piece = receiver.recv(min(count, 65_536))
        assert piece, f"{count} bytes did not come"
        count -= len(piece)


def test_what_the_client_does_not_read_is_left_with_the_server(site: Site, ends: Ends) -> None:
    before = site.edge.system.memory_info().rss
    sent = fill(ends.backend)
    assert sent < BUFFERED
    assert site.edge.system.memory_info().rss - before < 4 * MEGABYTE
    read(ends.client, sent)
    ends.backend.sendall(b"more")
    assert ends.client.recv(4) == b"more"


def test_what_the_server_does_not_read_is_left_with_the_client(site: Site, ends: Ends) -> None:
    before = site.edge.system.memory_info().rss
    sent = fill(ends.client)
    assert sent < BUFFERED
    assert site.edge.system.memory_info().rss - before < 4 * MEGABYTE
    read(ends.backend, sent)
    ends.client.sendall(b"more")
    assert ends.backend.recv(4) == b"more"


def test_answers_that_the_client_does_not_read_are_bounded_too(
    site: Site, listener: socket.socket
) -> None:
    with site.tcp(receive_buffer=65_536) as connection:
        client = KeyUpdates(connection, site.authority.client())
        backend, _ = listener.accept()
        with backend:
            before = site.edge.system.memory_info().rss
            asked = client.ask_until_stuck(STUCK_SECONDS, at_most=600_000)
            grown = site.edge.system.memory_info().rss - before
        client.close()
    assert grown < 4 * MEGABYTE
    assert asked < 600_000


def test_the_server_sees_a_client_go_that_did_not_read(ends: Ends) -> None:
    fill(ends.backend)
    ends.client.close()
    assert ended(ends.backend)


def test_the_servers_end_reaches_the_client_as_an_end_not_a_break(ends: Ends) -> None:
    ends.backend.sendall(b"last words")
    ends.backend.close()
    assert ends.client.recv(100) == b"last words"
    # A missing close_notify would raise: suppress_ragged_eofs is off.
    assert ends.client.recv(100) == b""


def test_the_servers_last_megabytes_reach_a_client_that_reads_late(ends: Ends) -> None:
    ends.backend.setblocking(False)
    sent = 0
    while sent < MEGABYTE and select.select([], [ends.backend], [], STUCK_SECONDS)[1]:
        sent += ends.backend.send(bytes(65_536))
    ends.backend.close()
    read(ends.client, sent)
    assert ends.client.recv(100) == b""


def test_a_client_that_ends_its_half_can_still_be_answered(
    site: Site, listener: socket.socket
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = site.context(site.authority.client())
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with site.tcp() as connection:
        while not done(tls.do_handshake):
            connection.sendall(outgoing.read())
            incoming.write(connection.recv(65_536))
        # All in one packet: the end of the handshake, a request, and the end of
        # the client's half (RFC 8446, 6.1).
        tls.write(b"request")
        assert not done(tls.unwrap)
        connection.sendall(outgoing.read())
        backend, _ = listener.accept()
        backend.settimeout(DEADLINE)
        with backend:
            assert backend.recv(100) == b"request"
            assert backend.recv(100) == b""
            backend.sendall(b"answer")
        answer = b""
        while len(answer) < len(b"answer"):
            try:
                answer += tls.read(100)
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65_536))
        assert answer == b"answer"
        assert ended(connection)


def done(step: object) -> bool:
    assert callable(step)
    try:
        step()
    except ssl.SSLWantReadError:
        return False
    return True


def test_without_the_service_a_connection_ends_at_once(site: Site) -> None:
    with site.tls(site.authority.client()) as client:
        assert client.recv(1) == b""
    site.edge.wait_for_log("cannot connect to gRPC at")
