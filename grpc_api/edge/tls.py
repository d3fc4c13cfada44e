"""The server's TLS: version 1.3, one suite, clients with certificates only.

Python's `ssl` cannot choose TLS 1.3 suites before 3.15; OpenSSL's own
configuration can. So the process that serves must be started with OPENSSL_CONF
naming the file `write_openssl_config` wrote, and what came of that is checked
here before anything is served.
"""

import contextlib
import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jobworker.grpc_api.edge.credentials import Credentials, TlsFiles, read_credentials
from jobworker.grpc_api.edge.trust import Trust
from jobworker.grpc_api.errors import TlsError

SUITE = "TLS_AES_256_GCM_SHA384"
# Of key exchange: those of Mozilla's intermediate profile that two sides agree on in practice.
GROUPS = ("X25519", "P-256")
# By the name that ssl has for it; not among them.
_OTHER_GROUP = "secp521r1"
# What is spoken over TLS (ALPN, RFC 7301): gRPC's protocol, and that of OutputFrame
# in workerservice.proto.
HTTP2 = "h2"
OUTPUT = "jobworker-output/1"
# What browsers speak to the console.
HTTP1 = "http/1.1"
# A port speaks the one or the other: no request to one is to be taken for one to another.
FOR_CLIENTS = (OUTPUT, HTTP2)
FOR_BROWSERS = (HTTP1,)

# config(5ssl), "SSL Configuration": system_default is applied to every context
# the process makes.
_OPENSSL_CONFIG = f"""\
openssl_conf = jobworker

[jobworker]
ssl_conf = ssl

[ssl]
system_default = tls

[tls]
Ciphersuites = {SUITE}
Groups = {":".join(GROUPS)}
MinProtocol = TLSv1.3
"""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerTls:
    """What new connections are accepted with: OpenSSL's part, and what outlives the handshake."""

    context: ssl.SSLContext
    trust: Trust
    expiries: Mapping[str, datetime]
    hosts: tuple[str, ...] = ()


def write_openssl_config(directory: Path) -> Path:
    """Write the file that OPENSSL_CONF must name in the serving process's environment.

    It has to be set before that process starts: OpenSSL reads it when it is
    first loaded.

    Raises:
        OSError: The file cannot be written.
    """
    path = directory / "openssl.cnf"
    path.write_text(_OPENSSL_CONFIG)
    return path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context that serves with `files`; see `load_server_tls`."""
    return load_server_tls(files).context


def load_server_tls(files: TlsFiles, protocols: tuple[str, ...] = FOR_CLIENTS) -> ServerTls:
    """Read the files and make of them what connections of these protocols are accepted with.

    Raises:
        TlsError: A file is missing, unreadable, malformed, expired, or does not
            fit the others; or this process's OpenSSL would offer another suite.
    """
    credentials = read_credentials(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(list(protocols))
    # No resumption: a session ticket would outlive the certificate's revocation
    # and spare the next handshake its check. Without tickets there is no early
    # data (0-RTT) either.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    _load(context, credentials, files)
    _check_suites(context)
    _check_groups(context)
    return ServerTls(context, credentials.trust, credentials.expiries, credentials.hosts)


def _load(context: ssl.SSLContext, credentials: Credentials, files: TlsFiles) -> None:
    # ssl loads from paths alone. Giving it the bytes that were checked, not the
    # files again, keeps a renewal in progress from slipping between the two.
    try:
        with _as_file(credentials.certificate) as certificate, _as_file(credentials.key) as key:
            context.load_cert_chain(certificate, key)
        with _as_file(credentials.authorities) as authorities:
            context.load_verify_locations(authorities)
        if credentials.revocation_lists is not None:
            with _as_file(credentials.revocation_lists) as revocation_lists:
                context.load_verify_locations(revocation_lists)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except ssl.SSLError as error:
        raise TlsError(f"OpenSSL cannot use {files.names()}: {error}") from error


def _check_suites(context: ssl.SSLContext) -> None:
    suites = [str(c["name"]) for c in context.get_ciphers() if c["protocol"] == "TLSv1.3"]
    if suites != [SUITE]:
        raise TlsError(
            f"this process's OpenSSL ({ssl.OPENSSL_VERSION}) offers the TLS 1.3 suites "
            f"{', '.join(suites) or 'none'}, and only {SUITE} is allowed; start it with "
            f"OPENSSL_CONF naming the file written for it "
            f"(now: {os.environ.get('OPENSSL_CONF', 'not set')})"
        )


def _check_groups(context: ssl.SSLContext) -> None:
    """Warn if a client could have another group; ssl cannot tell which there are."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ecdh_curve(_OTHER_GROUP)
    hello, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(answer, hello).do_handshake()
    try:
        context.wrap_bio(hello, answer, server_side=True).do_handshake()
    except ssl.SSLWantReadError:
        # Not a reason to end a service that is told to go on with new code (SIGHUP).
        _log.warning(
            "this process's OpenSSL takes other curves than %s: run `jobworker serve --upgrade`, "
            "which writes its configuration anew (OPENSSL_CONF, now: %s)",
            " and ".join(GROUPS),
            os.environ.get("OPENSSL_CONF", "not set"),
        )
    except ssl.SSLError:
        # It has no group that this client knows.
        return


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    # memfd_create(2): a file that no other process finds by name.
    with os.fdopen(os.memfd_create("tls"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
