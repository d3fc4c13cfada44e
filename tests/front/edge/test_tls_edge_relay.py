"""What the edge carries: every byte, both ways, and no more of them at once than it should."""

import hashlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.support.edge_process import DEADLINE, pieces
from tests.support.edge_site import Site, edge_site

MEGABYTE = 1 << 20
TOTAL = 200 * MEGABYTE


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("edge")) as running:
        yield running


def expected(total: int) -> str:
    digest = hashlib.sha256()
    for piece in pieces(total):
        digest.update(piece)
    return digest.hexdigest()


def test_200_megabytes_come_down_exact(site: Site) -> None:
    digest = hashlib.sha256()
    with site.channel(site.authority.client()) as channel:
        for piece in channel.unary_stream("/Test/Download", None, None)(str(TOTAL).encode()):
            digest.update(piece)
    assert digest.hexdigest() == expected(TOTAL)


def test_200_megabytes_go_up_exact(site: Site) -> None:
    with site.channel(site.authority.client()) as channel:
        digest: bytes = channel.stream_unary("/Test/Upload", None, None)(pieces(TOTAL))
    assert digest.decode() == expected(TOTAL)


def test_many_streams_both_ways_at_once_are_exact(site: Site) -> None:
    size = 20 * MEGABYTE
    with site.channel(site.authority.client()) as channel:
        download = channel.unary_stream("/Test/Download", None, None)
        uploads = [
            channel.stream_unary("/Test/Upload", None, None).future(pieces(size)) for _ in range(4)
        ]
        downloads = [download(str(size).encode()) for _ in range(4)]
        came = [hashlib.sha256(b"".join(stream)).hexdigest() for stream in downloads]
        went = [upload.result(DEADLINE).decode() for upload in uploads]
    assert came == went == [expected(size)] * 4


def test_a_message_larger_than_any_buffer_comes_back(site: Site) -> None:
    message = b"".join(pieces(3 * MEGABYTE))
    with site.channel(site.authority.client()) as channel:
        assert channel.unary_unary("/Test/Echo", None, None)(message, timeout=DEADLINE) == message


def test_a_stream_that_is_not_read_costs_bounded_memory(site: Site) -> None:
    with site.channel(site.authority.client()) as channel:
        before = site.edge.system.memory_info().rss
        stream = channel.unary_stream("/Test/Download", None, None)(str(TOTAL).encode())
        next(iter(stream))
        # Whatever can be sent ahead is, before the edge answers other clients
        # many times over.
        with site.channel(site.authority.client("bob")) as other:
            echo = other.unary_unary("/Test/Echo", None, None)
            for _ in range(500):
                echo(b"x", timeout=DEADLINE)
        grown = site.edge.system.memory_info().rss - before
        rest = sum(map(len, stream))
    assert grown < 32 * MEGABYTE
    assert rest > TOTAL - MEGABYTE


def test_a_client_that_breaks_off_is_forgotten(site: Site) -> None:
    with site.http2(site.authority.client("dave")) as tls:
        address = "{}:{}".format(*tls.getsockname())
        assert address in {one["address"] for one in site.edge.connections()}
        # RST in place of FIN: socket(7), SO_LINGER.
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until_gone(site, address)


def wait_until_gone(site: Site, address: str) -> None:
    for _ in range(100_000):
        if address not in {one["address"] for one in site.edge.connections()}:
            return
    raise AssertionError(f"{address} is still relayed")


def test_tampering_ends_the_connection(site: Site) -> None:
    with site.http2(site.authority.client()) as tls:
        # Past the client's own encryption.
        with socket.fromfd(tls.fileno(), socket.AF_INET, socket.SOCK_STREAM) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            read_to_the_end(tls)


def read_to_the_end(tls: ssl.SSLSocket) -> None:
    while tls.recv(65_536):
        pass
