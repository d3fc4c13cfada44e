"""Whom the server trusts: the authorities, and the certificates they took back."""

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature


@dataclass(frozen=True)
class Trust:
    """The authorities whose clients are served, and the certificates they revoked.

    OpenSSL decides this during the handshake and never again; this decides it
    for connections that are already open when the files change.
    """

    authorities: frozenset[x509.Certificate]
    # Serial numbers are unique only under one issuer (RFC 5280, 4.1.2.2).
    revoked: frozenset[tuple[x509.Name, int]]

    def objection(self, certificate: x509.Certificate, formerly: "Trust") -> str | None:
        """Say why a certificate that was accepted `formerly` would not be now; None if it would.

        Once an authority was taken away, only certificates issued directly by
        one that stayed are sure to have a chain: the intermediates a client
        sent are not kept. Its client can connect again and show them.
        """
        if self.revokes(certificate):
            return "its certificate was revoked"
        if formerly.authorities <= self.authorities:
            return None
        if any(_issued_by(certificate, authority) for authority in self.authorities):
            return None
        return "the authority that issued its certificate is trusted no more"

    def revokes(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate's issuer took it back."""
        return (certificate.issuer, certificate.serial_number) in self.revoked

    def revokes_serial(self, serial: str) -> bool:
        """Whether any issuer took a certificate of this serial number (hex) back."""
        number = int(serial, 16)
        return any(number == revoked for _, revoked in self.revoked)


def trust_in(
    authorities: Iterable[x509.Certificate],
    revocation_lists: Iterable[x509.CertificateRevocationList],
) -> Trust:
    """Trust the authorities, except for what the revocation lists name."""
    revoked = (
        (revocation_list.issuer, entry.serial_number)
        for revocation_list in revocation_lists
        for entry in revocation_list
    )
    return Trust(frozenset(authorities), frozenset(revoked))


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
