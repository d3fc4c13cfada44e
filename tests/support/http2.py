"""HTTP/2 by hand (RFC 9113): what no library would send."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from jobworker.client.endpoint import Endpoint
from jobworker.client.tls import client_context
from tests.support.openssl_client import PREFACE
from tests.support.server import PORT, Server

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, stream: int, content: bytes = b"", flags: int = 0) -> bytes:
    """One frame."""
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def headers(**fields: str) -> bytes:
    """A header block (RFC 7541, 6.2.2): literals, without any compression."""
    block = b""
    for name, value in fields.items():
        block += b"\0" + _text(name.replace("__", ":").replace("_", "-")) + _text(value)
    return block


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()


def call(stream: int, method: str, request: bytes) -> bytes:
    """The frames of a gRPC call."""
    block = headers(
        __method="POST",
        __scheme="https",
        __path=f"/workerservice.WorkerService/{method}",
        __authority="localhost",
        te="trailers",
        content_type="application/grpc",
    )
    message = b"\0" + len(request).to_bytes(4) + request
    return frame(HEADERS, stream, block, END_HEADERS) + frame(DATA, stream, message, END_STREAM)


def endpoint(server: Server, user: str) -> Endpoint:
    """Where and as whom `user` calls a server."""
    files = server.users[user]
    return Endpoint(server.address, server.authority.certificate, files.certificate, files.key)


@contextmanager
def connection(server: Server, user: str) -> Iterator[ssl.SSLSocket]:
    """A TLS connection on which the preface has been sent."""
    context = client_context(endpoint(server, user), ["h2"])
    with (
        socket.create_connection((server.host, PORT), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as tls,
    ):
        tls.sendall(PREFACE)
        yield tls
