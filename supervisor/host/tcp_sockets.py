"""TCP sockets as /proc shows them: which there are in a network, and whose they are.

proc(5) describes /proc/PID/net/tcp and /proc/PID/fd. A socket is known by its
inode, which no two that exist have in common, in whichever network they are.
"""

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

Address = IPv4Address | IPv6Address

# include/net/tcp_states.h
ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT, LISTEN = 0x01, 0x03, 0x08, 0x0A
_LOCAL4, _ANY4 = IPv4Address("127.0.0.1"), IPv4Address("0.0.0.0")  # noqa: S104 - to compare with
_LOCAL6, _ANY6 = IPv6Address("::1"), IPv6Address("::")


class Endpoint(NamedTuple):
    """An address, an IPv4 one as such also where IPv6 maps it, and a port."""

    address: Address
    port: int


class TcpSocket(NamedTuple):
    """A line of the table. `inode` is 0 of one that no program has: not accepted, or closed."""

    local: Endpoint
    remote: Endpoint
    state: int
    inode: int


def endpoint(address: str, port: int) -> Endpoint:
    """An endpoint as the functions of `socket` give it."""
    parsed = IPv6Address(address.partition("%")[0]) if ":" in address else IPv4Address(address)
    return Endpoint(_plain(parsed), port)


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def parse(table: str, port: int) -> Iterator[TcpSocket]:
    """The sockets at this port, from the text of /proc/PID/net/tcp or tcp6."""
    wanted = f":{port:04X}"
    for line in table.splitlines():
        if wanted in line:
            fields = line.split()
            local = _endpoint(fields[1])
            if local.port == port:
                yield TcpSocket(local, _endpoint(fields[2]), int(fields[3], 16), int(fields[9]))


def _endpoint(text: str) -> Endpoint:
    """From ADDRESS:PORT in hexadecimal, the address in 32-bit words of the host's byte order."""
    digits, _, port = text.partition(":")
    packed = bytes.fromhex(digits)
    if sys.byteorder == "little":
        packed = b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4))
    address = IPv4Address(packed) if len(packed) == len(_ANY4.packed) else IPv6Address(packed)
    return Endpoint(_plain(address), int(port, 16))


def sockets_at(process: int, port: int) -> list[TcpSocket]:
    """Those at a port in the network of a process, given by its directory in /proc, which is open.

    Raises OSError, such as when it has ended.
    """
    found: list[TcpSocket] = []
    for name in ("net/tcp", "net/tcp6"):
        # A kernel without IPv6 has no such table.
        with contextlib.suppress(FileNotFoundError):
            found += parse(_read(process, name), port)
    return found


def _read(directory: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
        return file.read()


def sockets_of(process: int) -> set[int]:
    """The inodes of all sockets that a process has open, given by its directory. Raises OSError."""
    found: set[int] = set()
    descriptors = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    try:
        for name in os.listdir(descriptors):  # noqa: PTH208 - a Path has no descriptor
            # What was closed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                kind, _, inode = os.readlink(name, dir_fd=descriptors).partition(":")
                if kind == "socket":
                    found.add(int(inode.strip("[]")))
    finally:
        os.close(descriptors)
    return found


def ways_to(listening: Sequence[TcpSocket], own: Collection[int]) -> list[Address]:
    """The addresses at which nobody but one of one's own sockets would take a connection.

    `listening` are all that listen at a port in a network, `own` the inodes of one's own.
    """
    wanted = dict.fromkeys(
        address
        for each in listening
        if each.inode in own
        for address in _ways_to(each.local.address)
    )
    return [address for address in wanted if _all_own(_takers(listening, address), own)]


def _ways_to(address: Address) -> Iterable[Address]:
    if address == _ANY4:
        return (_LOCAL4,)
    # It may take IPv4, too, or that alone where a host has no other.
    return (_LOCAL6, _LOCAL4) if address == _ANY6 else (address,)


def _takers(listening: Sequence[TcpSocket], address: Address) -> list[TcpSocket]:
    """Those of which the kernel chooses one for a connection to this address.

    Who has the very address goes before who has any (net/ipv4/inet_hashtables.c,
    compute_score), and among these IPv4's before IPv6's.
    """
    levels = (address, _ANY4, _ANY6) if address.version == 4 else (address, _ANY6)
    for level in levels:
        found = [each for each in listening if each.local.address == level]
        if found:
            return found
    return []


def _all_own(sockets: Collection[TcpSocket], own: Collection[int]) -> bool:
    return bool(sockets) and all(each.inode in own for each in sockets)
