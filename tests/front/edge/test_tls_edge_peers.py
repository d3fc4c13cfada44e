"""Who a call comes from, as the service behind the edge learns it."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.support.edge_process import DEADLINE, EdgeProcess
from tests.support.edge_site import Site, edge_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("edge")) as running:
        yield running


def who(channel: grpc.Channel) -> list[str]:
    """Return the common name and the peer name the service sees."""
    answer: bytes = channel.unary_unary("/Test/Who", None, None)(b"", timeout=DEADLINE)
    return answer.decode().split()


def test_each_client_is_known_by_its_own_certificate(site: Site) -> None:
    alice, bob = site.authority.client("alice"), site.authority.client("bob")
    with site.channel(alice) as first, site.channel(bob) as second, site.channel(alice) as third:
        answers = [who(channel) for channel in (first, second, third, first)]
        assert [name for name, _ in answers] == ["alice", "bob", "alice", "alice"]
        assert len({peer for _, peer in answers}) == 3
        shown = {(one["name"], one["peer"], one["serial"]) for one in site.edge.connections()}
        assert {
            ("alice", answers[0][1], format(alice.serial, "x")),
            ("bob", answers[1][1], format(bob.serial, "x")),
        } <= shown


def test_a_certificate_without_identity_is_told_why(site: Site) -> None:
    two_names = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
            x509.NameAttribute(NameOID.COMMON_NAME, "root"),
        ]
    )
    with (
        site.channel(site.authority.client(name=two_names)) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        who(channel)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.details() == "the certificate has 2 CNs; it must have exactly one"
    site.edge.wait_for_log("names nobody: the certificate has 2 CNs")


def test_whoever_comes_past_the_edge_is_nobody(site: Site) -> None:
    with (
        grpc.insecure_channel(f"unix:{site.edge.backend}") as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        who(channel)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.details() == "nobody known"


def test_a_live_peers_name_cannot_be_taken(site: Site) -> None:
    with site.channel(site.authority.client()) as channel:
        _, peer = who(channel)
        name = peer.removeprefix("unix-abstract:")
        with (
            socket.socket(socket.AF_UNIX) as impostor,
            pytest.raises(OSError, match="Address already in use"),
        ):
            impostor.bind(f"\0{name}")


def test_a_departed_peers_name_is_nobodys(site: Site) -> None:
    with site.channel(site.authority.client("carol")) as channel:
        _, peer = who(channel)
    with (
        relay_from(peer.removeprefix("unix-abstract:"), site.edge) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        who(channel)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.details() == "nobody known"


def test_the_relay_that_impersonates_works(site: Site) -> None:
    # Without this, the test above could pass for any other reason.
    with (
        relay_from("somebody", site.edge) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        assert channel.unary_unary("/Test/Echo", None, None)(b"x", timeout=DEADLINE) == b"x"


@contextmanager
def relay_from(name: str, edge: EdgeProcess) -> Iterator[int]:
    """Relay one TCP connection to gRPC's socket from an abstract name, and give the port."""
    with (
        socket.socket(socket.AF_UNIX) as backend,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        bind_when_free(backend, name, edge)
        backend.connect(str(edge.backend))
        thread = threading.Thread(target=carry, args=(listener, backend))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(DEADLINE)
        assert not thread.is_alive()


def bind_when_free(backend: socket.socket, name: str, edge: EdgeProcess) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            return backend.bind(f"\0{name}")
        except OSError:
            # The edge gives it up in its own time; meanwhile it has turns to run.
            edge.connections()
    raise AssertionError(f"the name {name} never came free")


def carry(listener: socket.socket, backend: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        other = {connection: backend, backend: connection}
        while True:
            readable, _, _ = select.select(list(other), [], [], DEADLINE)
            for end in readable:
                piece = end.recv(65_536)
                if not piece:
                    return
                other[end].sendall(piece)
            assert readable
