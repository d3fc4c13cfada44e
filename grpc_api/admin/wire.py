"""Frames on the administrator's socket: a length of 4 bytes, the most significant first."""

import struct
from pathlib import Path

from jobworker.grpc_api.config import ADMIN_SOCKET

LENGTH = struct.Struct("!I")
# A Reply has one job at most, whose command line is bounded.
MAX_FRAME = 16 * 1024 * 1024


def socket_path(runtime: Path) -> Path:
    """The socket in the front's own directory."""
    return runtime / ADMIN_SOCKET


def frame(message: bytes) -> bytes:
    """A message with its length before it."""
    return LENGTH.pack(len(message)) + message
