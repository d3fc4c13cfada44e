"""The kernel's table of TCP sockets, and who of those that listen takes a connection."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.host.tcp_sockets import (
    LISTEN,
    Address,
    Endpoint,
    TcpSocket,
    endpoint,
    parse,
    sockets_at,
    sockets_of,
    ways_to,
)

ports = st.integers(1, 65535)
inodes = st.integers(0, 2**32 - 1)
HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
NOWHERE = Endpoint(IPv4Address(0), 0)


def written(one: Endpoint) -> str:
    """An endpoint as the kernel writes it (net/ipv4/tcp_ipv4.c, tcp4_seq_show)."""
    packed = one.address.packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    numbers = [int.from_bytes(word, sys.byteorder) for word in words]
    return "".join(f"{number:08X}" for number in numbers) + f":{one.port:04X}"


def line(one: TcpSocket) -> str:
    return (
        f"   0: {written(one.local)} {written(one.remote)} {one.state:02X} 00000000:00000000 "
        f"00:00000000 00000000     0        0 {one.inode} 1 0000000000000000 100 0 0 10 0\n"
    )


def tables(addresses: st.SearchStrategy[Address]) -> st.SearchStrategy[list[TcpSocket]]:
    endpoints = st.builds(Endpoint, addresses, ports)
    return st.lists(st.builds(TcpSocket, endpoints, endpoints, st.integers(1, 12), inodes))


@given(
    tables(st.ip_addresses(v=4))
    | tables(st.ip_addresses(v=6).filter(lambda one: one.ipv4_mapped is None)),
    ports,
)
def test_what_the_kernel_writes_is_read(table: list[TcpSocket], port: int) -> None:
    text = HEADING + "".join(map(line, table))
    for wanted in {port, *(one.local.port for one in table)}:
        expected = [one for one in table if one.local.port == wanted]
        assert list(parse(text, wanted)) == expected


def test_an_ipv4_address_is_one_also_where_ipv6_maps_it() -> None:
    mapped = TcpSocket(
        Endpoint(IPv6Address("::ffff:127.0.0.1"), 80), Endpoint(IPv6Address("::"), 0), LISTEN, 7
    )
    (found,) = parse(HEADING + line(mapped), 80)
    assert found.local == endpoint("127.0.0.1", 80) == endpoint("::ffff:127.0.0.1", 80)


@contextmanager
def process() -> Iterator[int]:
    """This process's directory in /proc, open."""
    directory = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def test_a_real_socket_is_found_and_is_ones_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, process() as own:
        port = server.getsockname()[1]
        (found,) = [one for one in sockets_at(own, port) if one.state == LISTEN]
        assert found.local == endpoint(*server.getsockname())
        assert found.inode == os.fstat(server.fileno()).st_ino
        assert found.inode in sockets_of(own)
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                here = (endpoint(*accepted.getsockname()), endpoint(*client.getsockname()))
                (other,) = [one for one in sockets_at(own, port) if one[:2] == here]
                assert other.inode == os.fstat(accepted.fileno()).st_ino


def listening(**inodes: str) -> list[TcpSocket]:
    """Sockets that listen: their inodes, by number words, and addresses."""
    numbers = {"own": 1, "other": 2, "more": 3}
    return [
        TcpSocket(endpoint(address, 80), NOWHERE, LISTEN, numbers[name])
        for name, address in inodes.items()
    ]


ANY4, ANY6, LOCAL4, LOCAL6 = "0.0.0.0", "::", "127.0.0.1", "::1"


@pytest.mark.parametrize(
    ("sockets", "ways"),
    [
        ({"own": LOCAL4}, [LOCAL4]),
        ({"own": ANY4}, [LOCAL4]),
        ({"own": "10.1.2.3"}, ["10.1.2.3"]),
        ({"own": LOCAL6}, [LOCAL6]),
        ({"own": ANY6}, [LOCAL6, LOCAL4]),
        ({}, []),
        ({"other": LOCAL4}, []),
        # Somebody else has the very address, or the other family.
        ({"own": ANY4, "other": LOCAL4}, []),
        ({"own": ANY6, "other": LOCAL4}, [LOCAL6]),
        ({"own": ANY6, "other": ANY4}, [LOCAL6]),
        ({"own": ANY6, "other": LOCAL6}, [LOCAL4]),
        ({"own": LOCAL4, "other": ANY4}, [LOCAL4]),
        ({"own": LOCAL4, "other": ANY6}, [LOCAL4]),
        # The kernel would choose between the two (SO_REUSEPORT).
        ({"own": LOCAL4, "other": LOCAL4}, []),
        ({"own": ANY6, "other": ANY6}, []),
    ],
)
def test_only_where_nobody_else_takes_it(sockets: dict[str, str], ways: list[str]) -> None:
    assert [str(way) for way in ways_to(listening(**sockets), {1})] == ways


addresses = st.sampled_from([ANY4, ANY6, LOCAL4, LOCAL6, "127.0.0.2", "10.1.2.3", "fd00::1"])


@given(st.lists(st.tuples(addresses, st.integers(1, 6))), st.sets(st.integers(1, 6)))
def test_no_way_leads_to_somebody_else(pairs: list[tuple[str, int]], own: set[int]) -> None:
    """Whichever of those that could take it takes it."""
    table = [TcpSocket(endpoint(address, 80), NOWHERE, LISTEN, inode) for address, inode in pairs]
    for way in ways_to(table, own):
        exact = [one for one in table if one.local.address == way]
        any_of_family = ANY4 if way.version == 4 else ANY6
        wild = [one for one in table if str(one.local.address) == any_of_family]
        both = [one for one in table if str(one.local.address) == ANY6]
        takers = exact or wild or both
        assert takers
        assert {one.inode for one in takers} <= own
