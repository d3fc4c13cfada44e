"""The caller's side of the administrator's socket."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jobworker.grpc_api.admin.wire import LENGTH, MAX_FRAME, frame, socket_path
from jobworker.grpc_api.errors import AdminRefused, AdminUnreachable, ApiError
from jobworker.proto import admin_pb2 as admin


def ask(runtime: Path, request: admin.Request) -> Iterator[admin.Reply]:
    """Yield what the server of this directory replies, up to its end.

    Raises AdminUnreachable, AdminRefused when one may not, and ApiError with the
    reason when not all was done.
    """
    path = socket_path(runtime)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except PermissionError as error:
            text = f"{path} is closed to you: only root may, or the service's user"
            raise AdminRefused(text) from error
        except OSError as error:
            raise AdminUnreachable(f"no server answers on {path}: {error.strerror}") from error
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


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise AdminUnreachable("the server has ended the connection; its log may say why")
    return data
