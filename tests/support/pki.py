"""Certificates for tests: real ones, of every kind a server may be shown."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM, and the certificate's serial number."""

    certificate: Path
    key: Path
    serial: int


def subject(cn: str | None, ous: Sequence[str] = ()) -> x509.Name:
    """Return a subject of organizational units and a common name."""
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ou) for ou in ous]
    names = [] if cn is None else [x509.NameAttribute(NameOID.COMMON_NAME, cn)]
    return x509.Name([*units, *names])


class Authority:
    """A certificate authority that keeps everything in one directory."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self.directory = directory
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._revoked: list[int] = []
        now = datetime.now(UTC)
        builder = (
            _builder(self.name, self.name, self._key, now - HOUR, now + 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        self.certificate = self._path("ca", ".pem")
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    def client(
        self,
        cn: str | None = "alice",
        ous: Sequence[str] = ("team-a",),
        *,
        name: x509.Name | None = None,
        usages: Sequence[ObjectIdentifier] = (CLIENT,),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: Key | None = None,
    ) -> Issued:
        """Issue a client's certificate; `name` stands for any other subject."""
        return self._issue(
            name if name is not None else subject(cn, ous), usages, (), not_before, not_after, key
        )

    def expired_client(self, cn: str = "alice", ous: Sequence[str] = ("team-a",)) -> Issued:
        """Issue a client's certificate that was good until an hour ago."""
        now = datetime.now(UTC)
        return self.client(cn, ous, not_before=now - 2 * HOUR, not_after=now - HOUR)

    def server(
        self,
        *hosts: str,
        usages: Sequence[ObjectIdentifier] = (SERVER,),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Issued:
        """Issue a server's certificate for host names and addresses; localhost's by default."""
        hosts = hosts or ("localhost", "127.0.0.1", "::1")
        return self._issue(subject(hosts[0]), usages, hosts, not_before, not_after)

    def revoke(self, *issued: Issued) -> None:
        """Take certificates back, from the next revocation list on."""
        self._revoked += [one.serial for one in issued]

    def write_crl(self, path: Path, next_update: datetime | None = None) -> Path:
        """Write the revocation list as it is now, in place of what is there."""
        now = datetime.now(UTC)
        next_update = next_update or now + 24 * HOUR
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(min(now, next_update) - HOUR)
            .next_update(next_update)
        )
        for serial in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        revocation_list = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(revocation_list.public_bytes(Encoding.PEM))
        return path

    def _issue(
        self,
        name: x509.Name,
        usages: Sequence[ObjectIdentifier],
        hosts: Sequence[str],
        not_before: datetime | None,
        not_after: datetime | None,
        key: Key | None = None,
    ) -> Issued:
        now = datetime.now(UTC)
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, self.name, key, not_before or now - HOUR, not_after or now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts:
            builder = builder.add_extension(_alternative_names(hosts), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = format(certificate.serial_number, "x")
        issued = Issued(
            self._path(stem, ".pem"), self._path(stem, ".key"), certificate.serial_number
        )
        issued.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        issued.key.touch(mode=0o600)
        issued.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return issued

    def _path(self, stem: str, suffix: str) -> Path:
        return self.directory / f"{stem}{suffix}"


def _builder(
    name: x509.Name,
    issuer: x509.Name,
    key: Key,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
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


def _alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)
