"""The caller's side of the administrator's socket."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jobworker.grpc_api.admin.wire import LENGTH, MAX_FRAME, frame, socket_path
from jobworker.grpc_api.errors import AdminRefused, AdminUnreachable, ApiError
from jobworker.proto import admin_pb2 as admin
from jobworker.supervisor import StateError, running_config

# How long a front that is replaced, or was killed, is waited for.
PATIENCE_SECONDS = 10.0
AGAIN_SECONDS = 0.1


def ask(runtime: Path, request: admin.Request) -> Iterator[admin.Reply]:
    """Yield what the server of this directory replies, up to its end.

    Raises AdminUnreachable, AdminRefused when one may not, and ApiError with the
    reason when not all was done.
    """
    with _connected(runtime) as sock:
        sock.sendall(frame(request.SerializeToString()))
        with sock.makefile("rb") as stream:
            while True:
                (length,) = LENGTH.unpack(_read(stream, LENGTH.size))
                reply = admin.Reply.FromString(_read(stream, min(length, MAX_FRAME)))
                if reply.WhichOneof("reply") == "end":
                    break
                yield reply
    if reply.end.error:
        raise (AdminRefused if reply.end.refused else ApiError)(reply.end.error)


def _connected(runtime: Path) -> socket.socket:
    """A connection to the front, or to the next one where a service runs without it now."""
    path = socket_path(runtime)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
        except PermissionError as error:
            sock.close()
            text = f"{path} is closed to you: only root may, or the service's user"
            raise AdminRefused(text) from error
        except OSError as error:
            sock.close()
            if time.monotonic() > deadline or not _runs(runtime.parent):
                raise AdminUnreachable(f"no server answers on {path}: {error.strerror}") from error
            time.sleep(AGAIN_SECONDS)
        else:
            return sock


def _runs(state_dir: Path) -> bool:
    """Whether a service runs on the directory; False also for those who may not know."""
    try:
        running_config(state_dir)
    except (StateError, OSError):
        return False
    return True


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise AdminUnreachable("the server has ended the connection; its log may say why")
    return data
