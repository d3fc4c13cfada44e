"""Sockets of another network than one's own: that of a process in a namespace (setns(2)).

It takes a process to enter one. An ordinary user must enter the user namespace
that the network is of first, which only a process without threads may.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

_HERE = "/proc/self/ns/net"


def network_of(process: int) -> int:
    """What the network of a process is told by, given its directory in /proc. Raises OSError."""
    return os.stat("ns/net", dir_fd=process).st_ino


def own_network() -> int:
    """The same of this process's network."""
    return Path(_HERE).stat().st_ino


def socket_in(process: int, family: socket.AddressFamily) -> socket.socket:
    """A TCP socket, not connected, in the network of a process. Raises OSError."""
    if network_of(process) == own_network():
        return socket.socket(family, socket.SOCK_STREAM)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            # Isolated, and without site: it starts in a third of the time.
            [sys.executable, "-ISc", _ENTER, str(process), str(theirs.fileno()), str(int(family))],
            pass_fds=(process, theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise OSError(done.returncode, os.strerror(done.returncode))
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=descriptors[0])


_ENTER = """
import ctypes, os, socket, sys
process, told, family = map(int, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
def enter(name):
    namespace = os.open(f"ns/{name}", os.O_RDONLY, dir_fd=process)
    return 0 if libc.setns(namespace, 0) == 0 else ctypes.get_errno()
failed = enter("net")
if failed:
    failed = enter("user") or enter("net")
if failed:
    sys.exit(failed)
made = socket.socket(family, socket.SOCK_STREAM)
socket.send_fds(socket.socket(fileno=told), [b"!"], [made.fileno()])
"""
