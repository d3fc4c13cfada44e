"""The server's certificate, key, authorities and revocation lists, read and checked.

OpenSSL would find most of what is wrong with them too, but says it as
`[SSL] PEM lib (_ssl.c:3900)` or, worse, to the clients alone.
"""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.grpc_api.edge.trust import Trust, trust_in
from jobworker.grpc_api.errors import TlsError

_CRL_BEGIN = b"-----BEGIN X509 CRL-----"
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class TlsFiles:
    """Where the server's TLS comes from; all PEM.

    `certificate` is the server's own and may be followed by its intermediates;
    `ca` is one or more authorities whose clients are served; `crl`, where it is
    used, must hold a list from each authority that issues client certificates.
    """

    certificate: Path
    key: Path
    ca: Path
    crl: Path | None = None

    def all(self) -> tuple[Path, ...]:
        """Every file there is to read."""
        return self.certificate, self.key, self.ca, *([self.crl] if self.crl else [])

    def names(self) -> str:
        """The files' names, for messages."""
        return ", ".join(str(file) for file in self.all())


@dataclass(frozen=True)
class Credentials:
    """The files' contents, checked on their own and against each other; PEM.

    `hosts` are the names and addresses that the server's certificate is for.
    """

    certificate: bytes
    key: bytes
    authorities: bytes
    revocation_lists: bytes | None
    trust: Trust
    expiries: Mapping[str, datetime]
    hosts: tuple[str, ...]


def read_credentials(files: TlsFiles) -> Credentials:
    """Read each file once and check what came of it.

    Raises:
        TlsError: With the file's name, what is wrong with it and what to do.
    """
    now = datetime.now(UTC)
    certificate = _read(files.certificate, "the server's certificate")
    key = _read_key(files.key)
    leaf = _parse(x509.load_pem_x509_certificates, certificate, files.certificate, "certificate")[0]
    _check_leaf(leaf, files.certificate, now)
    _check_key(key, leaf, files)
    ca = _read(files.ca, "the CA certificate")
    authorities = _parse(x509.load_pem_x509_certificates, ca, files.ca, "certificate")
    _check_authorities(authorities, files.ca, now)
    crl = None
    lists: list[x509.CertificateRevocationList] = []
    if files.crl is not None:
        try:
            crl = _read(files.crl, "the revocation list")
        except TlsError as error:
            raise TlsError(
                f"{error}; copy the CA's ca.crl there (`jobworker ca crl --out {files.crl}`), or "
                "say `crl: null` in tls for a server that accepts revoked certificates"
            ) from error
        lists = _parse(_revocation_lists, crl, files.crl, "revocation list")
        _check_revocation_lists(lists, authorities, files, now)
    expiries = _expiries(leaf, authorities, lists)
    trust = trust_in(authorities, lists)
    return Credentials(certificate, key, ca, crl, trust, expiries, _hosts(leaf))


def _hosts(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return *names.get_values_for_type(x509.DNSName), *addresses


def _expiries(
    leaf: x509.Certificate,
    authorities: list[x509.Certificate],
    lists: list[x509.CertificateRevocationList],
) -> dict[str, datetime]:
    """When each part ends that nobody can connect without, by its setting in `tls`."""
    ends = {
        "certificate": leaf.not_valid_after_utc,
        # An old one may stand beside its successor until it ends.
        "ca": max(authority.not_valid_after_utc for authority in authorities),
    }
    updates = [one.next_update_utc for one in lists if one.next_update_utc is not None]
    if updates:
        ends["crl"] = min(updates)
    return ends


def _read(path: Path, meaning: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read {meaning} {path}: {error.strerror}") from error


def _read_key(path: Path) -> bytes:
    key = _read(path, "the server's key")
    mode = path.stat().st_mode
    if mode & stat.S_IROTH:
        raise TlsError(
            f"every user of this host can read the server's key {path} "
            f"(mode {stat.S_IMODE(mode):04o}); run `chmod 600 {path}`"
        )
    return key


def _parse(
    parser: Callable[[bytes], list[_Parsed]], content: bytes, path: Path, kind: str
) -> list[_Parsed]:
    try:
        parsed = parser(content)
    except ValueError as error:
        raise TlsError(f"{path} holds no usable {kind} in PEM form: {error}") from error
    if not parsed:
        raise TlsError(f"{path} holds no {kind} in PEM form")
    return parsed


def _revocation_lists(content: bytes) -> list[x509.CertificateRevocationList]:
    # cryptography reads the first of several only.
    blocks = content.split(_CRL_BEGIN)[1:]
    return [x509.load_pem_x509_crl(_CRL_BEGIN + block) for block in blocks]


def _check_leaf(leaf: x509.Certificate, path: Path, now: datetime) -> None:
    _check_validity(leaf, f"the server's certificate {path}", now)
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise TlsError(
            f"the certificate {path} is not for a server: its extended key usage lacks "
            "serverAuth, and every client would refuse it"
        )


def _check_validity(certificate: x509.Certificate, what: str, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        expired = certificate.not_valid_after_utc
        raise TlsError(f"{what} expired at {_utc(expired)}; put a renewed one in its place")
    if now < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc
        raise TlsError(f"{what} is not valid before {_utc(begins)}; check this host's clock")


def _check_key(key: bytes, leaf: x509.Certificate, files: TlsFiles) -> None:
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except TypeError as error:
        raise TlsError(
            f"the server's key {files.key} is encrypted; it must be usable with no passphrase"
        ) from error
    except ValueError as error:
        raise TlsError(f"{files.key} holds no usable private key in PEM form: {error}") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise TlsError(
            f"the key {files.key} does not belong to the certificate {files.certificate}; "
            "give the two that were issued together"
        )


def _check_authorities(authorities: list[x509.Certificate], path: Path, now: datetime) -> None:
    for authority in authorities:
        try:
            constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = x509.BasicConstraints(ca=False, path_length=None)
        if not constraints.ca:
            name = authority.subject.rfc4514_string()
            raise TlsError(f"{path} holds a certificate that is no authority's: {name}")
    # While authorities are exchanged an expired one may stand beside its successor.
    if all(now >= authority.not_valid_after_utc for authority in authorities):
        _check_validity(authorities[0], f"the CA certificate {path}", now)


def _check_revocation_lists(
    lists: list[x509.CertificateRevocationList],
    authorities: list[x509.Certificate],
    files: TlsFiles,
    now: datetime,
) -> None:
    for revocation_list in lists:
        issuer = revocation_list.issuer
        keys = [authority.public_key() for authority in authorities if authority.subject == issuer]
        # A list has keys of CAs alone; their types are those a list can be signed with.
        if not any(revocation_list.is_signature_valid(key) for key in keys):  # type: ignore[arg-type]
            raise TlsError(
                f"the revocation list {files.crl} of {issuer.rfc4514_string()} is not signed by "
                f"any authority in {files.ca}"
            )
        expires = revocation_list.next_update_utc
        if expires is not None and now >= expires:
            raise TlsError(
                f"the revocation list {files.crl} expired at {_utc(expires)}, so every client "
                "would be refused; put a new one in its place"
            )

    _check_every_authority_has_a_list(lists, authorities, files, now)


def _check_every_authority_has_a_list(
    lists: list[x509.CertificateRevocationList],
    authorities: list[x509.Certificate],
    files: TlsFiles,
    now: datetime,
) -> None:
    """Without it OpenSSL would refuse each of its clients, as one of an unknown authority."""
    listed = {one.issuer for one in lists}
    # An authority of authorities: its intermediates stand beside it and have lists of their own.
    above = {one.issuer for one in authorities if one.issuer != one.subject}
    for authority in authorities:
        name = authority.subject
        if name not in listed and name not in above and now < authority.not_valid_after_utc:
            raise TlsError(
                f"{files.crl} holds no revocation list of {name.rfc4514_string()}, which is in "
                f"{files.ca}, so each of its clients would be refused; append its list (ca.crl) "
                f"to {files.crl}"
            )


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
