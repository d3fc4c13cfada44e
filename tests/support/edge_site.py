"""A running edge with its authority, and clients for it."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from jobworker.grpc_api.edge.admission import EdgeLimits
from jobworker.grpc_api.edge.credentials import TlsFiles
from tests.support.edge_process import DEADLINE, EdgeProcess, running_edge
from tests.support.openssl_client import PREFACE
from tests.support.pki import Authority, Issued

FRAME_HEADER = 9


class Site(NamedTuple):
    """A running edge, its authority and the files it serves with."""

    authority: Authority
    edge: EdgeProcess
    files: TlsFiles

    @contextmanager
    def channel(self, client: Issued) -> Iterator[grpc.Channel]:
        """Give a gRPC client that shows a certificate."""
        credentials = grpc.ssl_channel_credentials(
            self.files.ca.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        )
        # A channel of its own: others to the same address share connections otherwise.
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
        )
        with grpc.secure_channel(self.edge.target, credentials, options) as channel:
            yield channel

    @contextmanager
    def tls(self, client: Issued) -> Iterator[ssl.SSLSocket]:
        """Give a TLS connection on which nothing has been sent."""
        context = self.context(client)
        with (
            self.tcp() as connection,
            context.wrap_socket(
                connection, server_hostname="localhost", suppress_ragged_eofs=False
            ) as tls,
        ):
            yield tls

    @contextmanager
    def http2(self, client: Issued) -> Iterator[ssl.SSLSocket]:
        """Give a TLS connection over which gRPC has answered, so that it is relayed."""
        with self.tls(client) as tls:
            tls.sendall(PREFACE)
            assert len(tls.recv(FRAME_HEADER)) > 0
            yield tls

    def context(self, client: Issued) -> ssl.SSLContext:
        """Return what a client that shows a certificate connects with."""
        context = ssl.create_default_context(cafile=str(self.files.ca))
        context.load_cert_chain(client.certificate, client.key)
        context.set_alpn_protocols(["h2"])
        return context

    def tcp(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a TCP connection on which nothing has been sent."""
        connection = socket.socket()
        connection.settimeout(DEADLINE)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.edge.port))
        return connection


@contextmanager
def edge_site(
    directory: Path,
    limits: EdgeLimits | None = None,
    *,
    revocation: bool = False,
    host: str = "127.0.0.1",
    open_files: int = 4096,
    service: bool = True,
) -> Iterator[Site]:
    """Serve from `directory` for as long as the block runs."""
    authority = Authority(directory)
    server = authority.server()
    crl = authority.write_crl(directory / "crl.pem") if revocation else None
    files = TlsFiles(server.certificate, server.key, authority.certificate, crl)
    with running_edge(files, directory, limits, host, open_files, service) as edge:
        yield Site(authority, edge, files)


def ended(connection: socket.socket) -> bool:
    """Whether the other side ends a connection, within the deadline."""
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
