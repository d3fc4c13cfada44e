"""Where the edge listens, and how it stops."""

import socket
import ssl
from pathlib import Path

import grpc
import pytest

from tests.support.edge_process import DEADLINE
from tests.support.edge_site import Site, edge_site, ended


def call(site: Site, host: str, port: int) -> bytes:
    client = site.authority.client()
    credentials = grpc.ssl_channel_credentials(
        site.files.ca.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
    )
    with grpc.secure_channel(f"{host}:{port}", credentials) as channel:
        answer: bytes = channel.unary_unary("/Test/Echo", None, None)(b"x", timeout=DEADLINE)
    return answer


def test_it_listens_on_several_addresses_ipv6_too(tmp_path: Path) -> None:
    with edge_site(tmp_path) as site:
        host, port = site.edge.command("start", host="::1", port=0)["address"]
        assert host == "::1"
        assert call(site, "[::1]", port) == b"x"
        assert call(site, "127.0.0.1", site.edge.port) == b"x"


def test_any_address_is_both_families(tmp_path: Path) -> None:
    with edge_site(tmp_path, host="::") as site:
        assert call(site, "[::1]", site.edge.port) == b"x"
        assert call(site, "127.0.0.1", site.edge.port) == b"x"


@pytest.mark.parametrize(
    ("host", "reason"),
    [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address")],
)
def test_an_address_that_cannot_be_had_is_an_error(tmp_path: Path, host: str, reason: str) -> None:
    with edge_site(tmp_path) as site:
        answer = site.edge.command("start", host=host, port=site.edge.port)
        assert answer["kind"] == "ListenError"
        assert answer["error"] == f"cannot listen on {host}:{site.edge.port}: {reason}"


def test_a_backend_that_others_could_reach_is_not_served(tmp_path: Path) -> None:
    with edge_site(tmp_path) as site:
        tmp_path.chmod(0o711)
        answer = site.edge.command("start", host="127.0.0.1", port=0)
        assert answer["kind"] == "BackendExposed"
        assert f"mode 0711); run `chmod 700 {tmp_path}`" in answer["error"]
        tmp_path.chmod(0o700)
        assert "address" in site.edge.command("start", host="127.0.0.1", port=0)


def test_stopping_lets_calls_end_and_then_ends_the_rest(tmp_path: Path) -> None:
    with edge_site(tmp_path) as site, site.channel(site.authority.client()) as channel:
        stream = channel.unary_stream("/Test/Park", None, None)(b"", timeout=DEADLINE)
        assert next(iter(stream)) == b"parked"
        with site.tcp() as silent, site.http2(site.authority.client("bob")) as idle:
            assert site.edge.command("stop", grace=0.5) == {"stopped": True}
            assert ended(silent)
            assert ended(idle)
        with pytest.raises(grpc.RpcError):
            next(iter(stream))
        assert site.edge.connections() == []
        with pytest.raises(ConnectionRefusedError):
            site.tcp()


def test_nothing_is_left_open_when_clients_have_gone(tmp_path: Path) -> None:
    with edge_site(tmp_path) as site:
        client = site.authority.client()
        assert call(site, "127.0.0.1", site.edge.port) == b"x"
        before = descriptors(site)
        for _ in range(20):
            with site.http2(client):
                pass
            with site.tcp() as silent:
                silent.shutdown(socket.SHUT_WR)
                assert ended(silent)
            with pytest.raises(ssl.SSLError), site.tls(site.authority.expired_client()) as tls:
                tls.recv(1)
        for _ in range(100_000):
            if not site.edge.connections() and descriptors(site) <= before:
                return
        assert descriptors(site) <= before


def descriptors(site: Site) -> int:
    number: int = site.edge.system.num_fds()
    return number
