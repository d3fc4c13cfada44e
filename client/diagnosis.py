"""Finds out why the server cannot be reached, or refuses the handshake, in words.

gRPC says little of that ("failed to connect to all addresses"), so once a call
has failed the connection is tried again with the standard library, which tells
a refused port from a wrong name and one bad certificate from another.
"""

import socket
import ssl
from datetime import UTC, datetime

from jobworker.client.certificate import validity_in, validity_of
from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import BadFile, CallFailed, ClientError, GaveUp, call_failed_with
from jobworker.client.tls import client_context

PATIENCE_SECONDS = 5.0


def explained(error: ClientError, endpoint: Endpoint) -> ClientError:
    """Return the error with its reason where gRPC has none: the server cannot be reached.

    Looking for the reason takes at most a few times PATIENCE_SECONDS.
    """
    match error:
        case CallFailed(code="UNAVAILABLE"):
            return why_unreachable(endpoint, error.message)
        case GaveUp(last=CallFailed(code="UNAVAILABLE") as last):
            return GaveUp(error.sought, why_unreachable(endpoint, last.message))
    return error


def why_unreachable(endpoint: Endpoint, said: str) -> ClientError:
    """Return what is wrong and what to check; `said` is told when a connection now succeeds.

    It is a BadFile where a file will not do, and a CallFailed otherwise: with
    UNAUTHENTICATED when the server does not accept one's certificate, and with
    UNAVAILABLE for all else. Opens a connection; takes at most a few times
    PATIENCE_SECONDS.
    """
    host, _ = endpoint.address
    try:
        _check_files(endpoint)
        with socket.create_connection(endpoint.address, timeout=PATIENCE_SECONDS) as plain:
            why = _handshake(plain, host, endpoint) or said
    except ClientError as error:
        return error
    except OSError as error:
        why = _no_connection(error)
    return call_failed_with("UNAVAILABLE", why)


def _handshake(plain: socket.socket, host: str, endpoint: Endpoint) -> str:
    """Return what goes wrong in the TLS handshake over `plain`, "" if nothing does.

    Raises CallFailed when it is one's certificate.
    """
    try:
        with client_context(endpoint, ["h2"]).wrap_socket(plain, server_hostname=host) as secured:
            # In TLS 1.3 the server's verdict on our certificate follows the
            # handshake; a server that took it sends its HTTP/2 settings.
            if secured.recv(1):
                return ""
    except TimeoutError:
        return "it takes connections but does not answer; see its log"
    except ssl.SSLCertVerificationError as error:
        return _bad_server_certificate(error, host, endpoint)
    except ssl.SSLError as error:
        return _refused_handshake(error, endpoint)
    check_dates(endpoint)
    return f"it may not accept the certificate {endpoint.cert}; its log says why it hung up"


# Reasons of SSLError with which OpenSSL itself does not take a certificate.
_TOO_WEAK = {
    "EE_KEY_TOO_SMALL": "its key is too short",
    "CA_KEY_TOO_SMALL": "a CA's key in it is too short",
    "CA_MD_TOO_WEAK": "it is signed with a hash that is broken, such as SHA-1",
}


def _check_files(endpoint: Endpoint) -> None:
    """Raise BadFile for a file that is damaged, CallFailed for a certificate nobody accepts."""
    for path in (endpoint.ca, endpoint.cert):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except ssl.SSLError as error:
            raise BadFile(f"the certificate file {path} is damaged") from error
    try:
        client_context(endpoint, ["h2"])
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadFile(
                f"the key {endpoint.key} does not belong to the certificate {endpoint.cert}"
            ) from error
        if error.reason in _TOO_WEAK:
            raise _not_accepted(
                f"{_TOO_WEAK[error.reason]}; get one with an EC key, or RSA of 2048 bits or more"
            ) from error
        raise BadFile(f"the key file {endpoint.key} is damaged") from error


def _not_accepted(why: str) -> CallFailed:
    return call_failed_with("UNAUTHENTICATED", why)


def check_dates(endpoint: Endpoint) -> None:
    """Raise CallFailed if one's certificate is not valid now, by this host's clock.

    Raises BadFile as well, for what is no certificate.
    """
    validity, now = validity_of(endpoint.cert), datetime.now(UTC)
    if now > validity.end:
        raise _not_accepted(f"it expired at {_utc(validity.end)}; get a new one")
    if now < validity.begin:
        raise _not_accepted(
            f"it is valid only from {_utc(validity.begin)} on; check this host's clock"
        )


def _utc(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


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
        return (
            f"its certificate {_dates_of_server(endpoint)}; tell who runs it, or check both clocks"
        )
    return (
        f"its certificate is not signed by the CA in {endpoint.ca} ({error.verify_message}); "
        "get the CA certificate from who runs the server"
    )


def _dates_of_server(endpoint: Endpoint) -> str:
    """Return from when or until when the server's certificate is valid, as far as can be told."""
    context = client_context(endpoint, ["h2"])
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(endpoint.address, timeout=PATIENCE_SECONDS) as plain,
            context.wrap_socket(plain) as secured,
        ):
            validity = validity_in(secured.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError, IndexError):
        return "is not valid now"
    if datetime.now(UTC) > validity.end:
        return f"expired at {_utc(validity.end)}"
    return f"is valid only from {_utc(validity.begin)} on"


# TLS alerts (RFC 8446, section 6) as OpenSSL names them in SSLError.reason.
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it is signed by a CA that the server does not trust",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it has been revoked; get a new one",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is not for clients; get one that is",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server's log says why",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server's log says why",
}


def _refused_handshake(error: ssl.SSLError, endpoint: Endpoint) -> str:
    """Return why the handshake failed; raises CallFailed when it is one's certificate."""
    reason = error.reason or ""
    if reason in {*_ALERTS, "SSLV3_ALERT_CERTIFICATE_EXPIRED"}:
        check_dates(endpoint)
    if reason in _ALERTS:
        raise _not_accepted(_ALERTS[reason]) from error
    if reason == "SSLV3_ALERT_CERTIFICATE_EXPIRED":
        # OpenSSL sends this alert for a revocation list that has expired, too.
        return (
            f"it says that the certificate {endpoint.cert} has expired, which is valid until "
            f"{_utc(validity_of(endpoint.cert).end)}: the server's clock is wrong, or its "
            "revocation list out of date; tell who runs it"
        )
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
