"""Telling systemd how the service is (sd_notify(3)); does nothing where nobody listens."""

import contextlib
import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send assignments such as "READY=1" to the socket that NOTIFY_SOCKET names, if it is set.

    What cannot be told now is lost: no job is to end for that.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
        sock.sendto("\n".join(assignments).encode(), address)


def reloading() -> None:
    """Say that an upgrade has begun (Type=notify-reload wants the time, too)."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}")
