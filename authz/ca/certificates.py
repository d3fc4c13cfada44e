"""What the certificates and revocation lists of our CA hold (RFC 5280)."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
KeyType = Literal["p256", "ed25519"]
# For hosts whose clocks are a little behind.
CLOCK_SKEW = timedelta(minutes=5)
_MAX_CN = 64
# RFC 1123, 2.1: letters, digits and hyphens, labels of at most 63.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


class Period(NamedTuple):
    """When something is valid; both aware."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Issuer:
    """The CA's certificate and key."""

    certificate: x509.Certificate
    key: PrivateKey


def new_key(kind: KeyType) -> PrivateKey:
    """Return a new private key. gRPC's own TLS (BoringSSL) takes no Ed25519 certificates."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def period(now: datetime, lifetime: timedelta) -> Period:
    """Return the period of `lifetime` from `now`, and of CLOCK_SKEW before."""
    return Period(now - CLOCK_SKEW, now + lifetime)


def authority_certificate(name: str, key: PrivateKey, valid: Period) -> x509.Certificate:
    """Return the self-signed certificate of a CA that signs no other CAs."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, subject, key.public_key(), valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return builder.sign(key, _hash(key))


def client_certificate(
    issuer: Issuer, key: PublicKey, cn: str, ous: Sequence[str], valid: Period
) -> x509.Certificate:
    """Return a client's certificate; it ends with the CA's at the latest."""
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ou) for ou in ous]
    subject = x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    builder = _leaf(issuer, key, subject, ExtendedKeyUsageOID.CLIENT_AUTH, valid)
    return builder.sign(issuer.key, _hash(issuer.key))


def server_certificate(
    issuer: Issuer, key: PublicKey, hosts: Sequence[str], valid: Period
) -> x509.Certificate:
    """Return a server's certificate for DNS names and IP addresses, see `is_host`.

    Clients look at the subject alternative names only; the CN is for people.
    """
    cn = [x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])] if len(hosts[0]) <= _MAX_CN else []
    builder = _leaf(
        issuer, key, x509.Name(cn), ExtendedKeyUsageOID.SERVER_AUTH, valid
    ).add_extension(
        # RFC 5280, 4.1.2.6: critical when there is no subject.
        x509.SubjectAlternativeName([_general_name(host) for host in hosts]),
        critical=not cn,
    )
    return builder.sign(issuer.key, _hash(issuer.key))


def revocation_list(
    issuer: Issuer, number: int, revoked: Iterable[tuple[int, datetime]], valid: Period
) -> x509.CertificateRevocationList:
    """Return the CA's signed list of revoked serial numbers, each with when it was revoked.

    `number` must be larger than that of every list before (RFC 5280, 5.2.3).
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(valid.start)
        .next_update(valid.end)
        .add_extension(_authority_key(issuer), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, _hash(issuer.key))


def is_host(text: str) -> bool:
    """Whether `text` is a DNS name or an IP address that a certificate can be for."""
    return _address(text) is not None or (
        _HOST.fullmatch(text) is not None and not text.replace(".", "").isdigit()
    )


def _leaf(
    issuer: Issuer,
    key: PublicKey,
    subject: x509.Name,
    purpose: ObjectIdentifier,
    valid: Period,
) -> x509.CertificateBuilder:
    until = Period(valid.start, min(valid.end, issuer.certificate.not_valid_after_utc))
    return (
        _builder(subject, issuer.certificate.subject, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, valid: Period
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid.start)
        .not_valid_after(valid.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _general_name(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A zone (fe80::1%eth0) has no place in a certificate.
    scoped = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    return None if scoped else address


def _hash(key: PrivateKey) -> hashes.SHA256 | None:
    # Ed25519 brings its own.
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
