"""A client that got through the handshake: its certificate, and who that says it is."""

from dataclasses import dataclass

from cryptography import x509

from jobworker.authz.identity import Identity, IdentityError, identity_from_der
from jobworker.grpc_api.edge.session import TlsSession
from jobworker.grpc_api.errors import HandshakeRefused


@dataclass(frozen=True)
class Client:
    """A verified certificate, with its identity or the reason why it has none.

    One without identity is let through all the same, so that each of its calls
    can be answered with that reason.
    """

    certificate: x509.Certificate
    identity: Identity | IdentityError

    @property
    def name(self) -> str:
        """Its common name, or words for a client that has none; no common name has spaces."""
        if isinstance(self.identity, Identity):
            return self.identity.common_name
        return "a client without an identity"

    @property
    def serial(self) -> str:
        """The certificate's serial number, in lower-case hexadecimal."""
        return format(self.certificate.serial_number, "x")


def client_of(session: TlsSession) -> Client:
    """Return the client of a session whose handshake is complete.

    Raises:
        HandshakeRefused: It is not what the server promises to accept.
    """
    session.check_agreed()
    der = session.certificate()
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Parsed only now, and looked up on every reload.
        _ = certificate.issuer
    except ValueError as error:
        # OpenSSL verified it and is the less strict reader of the two.
        raise HandshakeRefused(f"its certificate is malformed: {error}") from error
    try:
        return Client(certificate, identity_from_der(der))
    except IdentityError as error:
        return Client(certificate, error)
