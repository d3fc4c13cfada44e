"""What clients can make the edge hold, and that those who behave get in all the same."""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from jobworker.grpc_api.edge.admission import EdgeLimits
from tests.support.edge_process import DEADLINE
from tests.support.edge_site import Site, edge_site, ended
from tests.support.pki import Issued


def served(channel: grpc.Channel) -> bool:
    call = channel.unary_unary("/Test/Who", None, None)
    try:
        return bool(call(b"", timeout=DEADLINE))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return False
        raise


def test_a_handshake_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    limits = EdgeLimits(handshake_seconds=0.5)
    with edge_site(tmp_path, limits) as site, ExitStack() as stack:
        begin = time.monotonic()
        silent, slow = (stack.enter_context(site.tcp()) for _ in range(2))
        # The first bytes of a ClientHello record that never becomes whole.
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert ended(silent)
        assert ended(slow)
        assert 0.4 < time.monotonic() - begin < DEADLINE / 2
        site.edge.wait_for_log("it did not complete the handshake within 0.5 s")
        with site.channel(site.authority.client()) as channel:
            assert served(channel)


def test_a_byte_now_and_then_does_not_prolong_a_handshake(tmp_path: Path) -> None:
    with edge_site(tmp_path, EdgeLimits(handshake_seconds=0.5)) as site, ExitStack() as stack:
        begin = time.monotonic()
        slow = stack.enter_context(site.tcp())
        hello = b"\x16\x03\x01\x02\x00" + bytes(512)
        slow.settimeout(0.05)
        # It may end with an error, as what was sent has not been read.
        with contextlib.suppress(ConnectionError):
            for byte in hello:
                slow.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    if not slow.recv(1):
                        break
            else:
                pytest.fail("it has had as long as it takes")
        assert 0.4 < time.monotonic() - begin < DEADLINE / 2


def test_silent_connections_keep_nobody_out(tmp_path: Path) -> None:
    limits = EdgeLimits(handshakes=8, connections=4, handshake_seconds=600)
    with edge_site(tmp_path, limits) as site, ExitStack() as stack:
        silent = [stack.enter_context(site.tcp()) for _ in range(40)]
        client = stack.enter_context(site.channel(site.authority.client()))
        assert served(client)
        # The oldest gave way.
        assert all(ended(connection) for connection in silent[:31])
        more = [stack.enter_context(site.tcp()) for _ in range(40)]
        assert served(client)
        with site.channel(site.authority.client("bob")) as another:
            assert served(another)
        assert all(ended(connection) for connection in more[:31])


@contextmanager
def several(site: Site, client: Issued, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(site.http2(client))
        yield


def turned_away(site: Site, client: Issued) -> str:
    """Return what each call of a client is answered that is not taken."""
    with site.channel(client) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/Test/Who", None, None)(b"", timeout=DEADLINE)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return refused.value.details() or ""


def test_one_name_cannot_take_all_connections(tmp_path: Path) -> None:
    with edge_site(tmp_path, EdgeLimits(connections=8, connections_per_name=3)) as site:
        alice, bob = site.authority.client("alice"), site.authority.client("bob")
        also_alice = site.authority.client("alice")
        with several(site, alice, 2), several(site, also_alice, 1):
            said = turned_away(site, alice)
            assert "alice has 3 connections to the server, its limit" in said
            with site.channel(bob) as channel:
                assert served(channel)
        assert served_when_there_is_room(site, alice)


def test_a_full_server_says_so_and_takes_clients_again(tmp_path: Path) -> None:
    with edge_site(tmp_path, EdgeLimits(connections=2)) as site:
        alice, bob = site.authority.client("alice"), site.authority.client("bob")
        with several(site, alice, 2):
            assert "the server has 2 connections, its limit" in turned_away(site, bob)
            assert len(site.edge.connections()) == 2
        assert served_when_there_is_room(site, bob)


def served_when_there_is_room(site: Site, client: Issued) -> bool:
    # A connection's place is free some time after its client closed it.
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with site.channel(client) as channel:
            if served(channel):
                return True
    return False


def test_clients_without_identity_share_one_limit(tmp_path: Path) -> None:
    with edge_site(tmp_path, EdgeLimits(connections_per_name=2)) as site:
        nameless = [site.authority.client(None, [unit]) for unit in ("a", "b", "c")]
        with several(site, nameless[0], 1), several(site, nameless[1], 1):
            said = turned_away(site, nameless[2])
        assert "a client without an identity has 2 connections" in said


def test_running_out_of_descriptors_ends_nothing(tmp_path: Path) -> None:
    limits = EdgeLimits(handshakes=500, handshake_seconds=600)
    with edge_site(tmp_path, limits, open_files=100) as site, ExitStack() as stack:
        client = stack.enter_context(site.channel(site.authority.client()))
        assert served(client)
        silent = [stack.enter_context(site.tcp()) for _ in range(120)]
        said = site.edge.wait_for_log("cannot accept connections")
        assert "Too many open files" in said
        assert served(client)
        reset(silent)
        with site.channel(site.authority.client("bob")) as another:
            assert served(another)


def reset(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()
