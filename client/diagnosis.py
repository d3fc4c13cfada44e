"""Finds out why the server cannot be reached, or refuses the handshake, in words.

gRPC says little of that ("failed to connect to all addresses"), so once a call
has failed the connection is tried again with the standard library, which tells
a refused port from a wrong name and one bad certificate from another.
"""

import socket
import ssl

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed, ClientError, GaveUp
from jobworker.client.tls import client_context

PATIENCE_SECONDS = 5.0


def explained(error: ClientError, endpoint: Endpoint) -> ClientError:
    """Return the error with its reason where gRPC has none: the server cannot be reached.

    Looking for the reason takes at most a few times PATIENCE_SECONDS.
    """
    match error:
        case CallFailed(code="UNAVAILABLE"):
            return CallFailed(error.code, why_unreachable(endpoint, error.message))
        case GaveUp(last=CallFailed(code="UNAVAILABLE") as last):
            why = why_unreachable(endpoint, last.message)
            return GaveUp(error.sought, CallFailed(last.code, why))
    return error


def why_unreachable(endpoint: Endpoint, said: str) -> str:
    """Return what is wrong and what to check, or `said` when a connection now succeeds.

    Opens a connection; takes at most a few times PATIENCE_SECONDS.
    """
    fault = _fault_in_files(endpoint)
    if fault:
        return fault
    address = endpoint.address
    try:
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as plain:
            return _handshake(plain, address[0], endpoint) or said
    except OSError as error:
        return _no_connection(error)


def _handshake(plain: socket.socket, host: str, endpoint: Endpoint) -> str:
    """Return what goes wrong in the TLS handshake over `plain`, "" if nothing does."""
    try:
        with client_context(endpoint, ["h2"]).wrap_socket(plain, server_hostname=host) as secured:
            # In TLS 1.3 the server's verdict on our certificate follows the
            # handshake; a server that took it sends its HTTP/2 endpoint.
            if secured.recv(1):
                return ""
    except TimeoutError:
        return "it takes connections but does not answer; see its log"
    except ssl.SSLCertVerificationError as error:
        return _bad_server_certificate(error, host, endpoint)
    except ssl.SSLError as error:
        return _refused_handshake(error, endpoint)
    return f"it may not accept the certificate {endpoint.cert}; its log says why it hung up"


def _fault_in_files(endpoint: Endpoint) -> str:
    """Return what is wrong with the CA, certificate or key file, "" if nothing is."""
    for path in (endpoint.ca, endpoint.cert):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError:
            return f"the certificate file {path} is damaged"
    try:
        client_context(endpoint, ["h2"])
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key {endpoint.key} does not belong to the certificate {endpoint.cert}"
        return f"the key file {endpoint.key} is damaged"
    return ""


# X509_V_ERR_* of x509_vfy.h(3ssl) for the server's certificate.
_EXPIRED, _NOT_YET_VALID, _NAME_MISMATCH, _ADDRESS_MISMATCH = 10, 9, 62, 64


def _bad_server_certificate(
    error: ssl.SSLCertVerificationError, host: str, endpoint: Endpoint
) -> str:
    if error.verify_code in (_NAME_MISMATCH, _ADDRESS_MISMATCH):
        return (
            f"its certificate is not for {host}; call it by a name in its certificate, "
            f"or issue it one with `jobworker ca issue --server {host}`"
        )
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return f"its certificate is not valid now ({error.verify_message}); check both clocks"
    return (
        f"its certificate is not signed by the CA in {endpoint.ca} ({error.verify_message}); "
        "get the CA certificate from who runs the server"
    )


# TLS alerts (RFC 8446, section 6) as OpenSSL names them in SSLError.reason.
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "is signed by a CA that the server does not trust",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "has expired; get a new one",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "has been revoked; get a new one",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "is not for clients; get one that is",
    "SSLV3_ALERT_BAD_CERTIFICATE": "is not one the server accepts; its log says why",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "is not one the server accepts; its log says why",
}


def _refused_handshake(error: ssl.SSLError, endpoint: Endpoint) -> str:
    reason = error.reason or ""
    if reason in _ALERTS:
        return f"the certificate {endpoint.cert} {_ALERTS[reason]}"
    if reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
        return "what answers there does not speak TLS 1.3 as a job-worker does; check the port"
    return f"the TLS handshake failed: {error}"


def _no_connection(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"its host name is not known ({error.strerror}); check its spelling"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; check the port, and that `jobworker serve` runs"
    if isinstance(error, TimeoutError):
        return "no answer; check the host, the port, and the firewalls between"
    return f"{error.strerror or error}; check the host and the port"
