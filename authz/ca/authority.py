"""A small certificate authority in a directory: issues, lists, renews and revokes.

    ca.crt, ca.key      the CA's own certificate, and its private key (0600)
    ca.crl              the list of revoked certificates, signed, for servers
    index.json          every certificate that was issued
    NAME.crt, NAME.key  what was issued, unless another directory was asked for

A certificate is in the index before it is anywhere else, so there is none that
could not be revoked.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from jobworker.authz.ca import certificates, durable
from jobworker.authz.ca.certificates import Issuer, KeyType, PrivateKey, PublicKey, period
from jobworker.authz.ca.index import Entry, find, no_ca, of_name, of_user, read_index, write_index
from jobworker.authz.errors import CaError
from jobworker.authz.identity import MAX_TENANTS, Identity
from jobworker.authz.names import objection_to_name, shown

# A local file does not age on its way; it is written anew with every change.
CRL_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate's entry in the index, and its files (PEM)."""

    entry: Entry
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Terms:
    """How a certificate is issued: for how long, with what key, into which directory."""

    lifetime: timedelta
    key_type: KeyType = "p256"
    directory: Path | None = None


class CertificateAuthority:
    """The CA in a directory. Several processes may use it at a time.

    Raises:
        CaError: From every method: why it cannot be done. Nothing has changed
            then, unless a file could not be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self.revocations = directory / "ca.crl"
        self._key = directory / "ca.key"
        self._index = directory / "index.json"

    def create(self, name: str, key_type: KeyType, lifetime: timedelta) -> None:
        """Make a new CA, which nobody has revoked anything of yet."""
        if not 0 < len(name) <= 64 or not name.isprintable():
            raise CaError(f"a CA's name has 1 to 64 printable characters: {shown(name)}")
        _make_private(self.directory)
        key = certificates.new_key(key_type)
        certificate = certificates.authority_certificate(name, key, period(_now(), lifetime))
        with _telling(self.directory), self._locked():
            if self.certificate.exists():
                raise CaError(
                    f"there is a CA in {self.directory} already; choose another directory"
                )
            # What is there without its certificate is of a `create` that was cut off.
            durable.replace(self._key, _key_pem(key), 0o600)
            write_index(self._index, ())
            self._write_revocations(Issuer(certificate, key), ())
            durable.create(self.certificate, certificate.public_bytes(Encoding.PEM))

    def entries(self) -> tuple[Entry, ...]:
        """Return every certificate that was issued, oldest first."""
        with _telling(self.directory):
            return read_index(self._index)

    def issue_client(self, cn: str, tenants: Sequence[str], terms: Terms) -> Issued:
        """Issue a certificate for a user of these tenants; its files must not be there yet."""
        check_user(cn, tenants)
        return self._issue(_Subject("client", cn, tuple(tenants)), terms, durable.create)

    def sign(
        self, key: PublicKey, cn: str, tenants: Sequence[str], lifetime: timedelta, file: Path
    ) -> Entry:
        """Write a certificate for the key of a user of these tenants, in place of `file`."""
        check_user(cn, tenants)
        subject = _Subject("client", cn, tuple(tenants))
        with _telling(file.parent), self._locked():
            issuer = self._issuer()
            if file.resolve() in {self.certificate.resolve(), self._key.resolve()}:
                raise CaError(f"{file} is the CA's own; name another place with --out")
            certificate = _certificate(issuer, key, subject, lifetime)
            entry = _entry(subject, certificate)
            entries = (*read_index(self._index), entry)
            write_index(self._index, entries)
            durable.replace(file, certificate.public_bytes(Encoding.PEM))
            self._write_revocations(issuer, entries)
        return entry

    def certify(
        self,
        key: PublicKey,
        cn: str,
        tenants: Sequence[str],
        lifetime: timedelta,
        formerly: str,
        check: "Check",
    ) -> tuple[Entry, bytes]:
        """Return a certificate (PEM) for a user who shows another, and its entry.

        `formerly` is the other's serial number (hex). `check` raises CaError unless that will
        do; nobody issues or revokes meanwhile. One that is not valid never does.
        """
        check_user(cn, tenants)
        subject = _Subject("client", cn, tuple(tenants))
        with _telling(self.directory), self._locked():
            issuer, entries = self._issuer(), read_index(self._index)
            shown_entry = next((one for one in entries if one.serial == formerly), None)
            check(issuer, entries, shown_entry)
            if shown_entry is None or shown_entry.state(_now()) != "valid":
                raise CaError("the certificate is not valid any more")
            certificate = _certificate(issuer, key, subject, lifetime)
            entry = _entry(subject, certificate)
            write_index(self._index, (*entries, entry))
        return entry, certificate.public_bytes(Encoding.PEM)

    @staticmethod
    def now() -> datetime:
        """The time, as certificates have it."""
        return _now()

    def issue_server(self, hosts: Sequence[str], terms: Terms) -> Issued:
        """Issue a certificate for a server that is called by these DNS names and addresses."""
        for host in hosts:
            if not certificates.is_host(host):
                raise CaError(f"{shown(host)} is no DNS name or IP address")
        return self._issue(_Subject("server", hosts[0], tuple(hosts)), terms, durable.create)

    def renew(self, name: str, terms: Terms) -> Issued:
        """Issue the newest valid certificate of a user or server again, with a new key.

        The new files take the place of the old. The old certificate stays good
        until it expires or is revoked.
        """
        entry = of_name(self.entries(), name, _now())[-1]
        subject = _Subject(entry.purpose, entry.name, entry.tenants or entry.hosts)
        return self._issue(subject, terms, durable.replace)

    def revoke_serial(self, serial: str) -> list[Entry]:
        """Revoke the certificate with a serial number (hex); returns it."""
        return self._revoke(lambda entries: [find(entries, serial)])

    def revoke_name(self, name: str) -> list[Entry]:
        """Revoke every valid certificate of a user or server; returns them."""
        return self._revoke(lambda entries: of_name(entries, name, _now()))

    def revoke_user(self, cn: str) -> list[Entry]:
        """Revoke every valid certificate of a user, who may have none; returns them."""
        return self._revoke(lambda entries: of_user(entries, cn, _now()))

    def publish(self, copy: Path | None = None) -> Path:
        """Sign the list of revoked certificates anew; returns its file, or the copy's."""
        with _telling(self.directory), self._locked():
            self._write_revocations(self._issuer(), read_index(self._index))
            if copy is None:
                return self.revocations
            durable.replace(copy, self.revocations.read_bytes())
            return copy

    def _issue(self, subject: "_Subject", terms: Terms, write: "_Write") -> Issued:
        directory = terms.directory or self.directory
        certificate_file = directory / f"{subject.name}.crt"
        key_file = directory / f"{subject.name}.key"
        with _telling(directory), self._locked():
            issuer = self._issuer()
            if certificate_file == self.certificate:
                raise CaError(f"{certificate_file} is the CA's own; name another place with --out")
            if write is durable.create:
                _check_free(subject.name, certificate_file, key_file)
            key = certificates.new_key(terms.key_type)
            certificate = _certificate(issuer, key.public_key(), subject, terms.lifetime)
            entry = _entry(subject, certificate)
            entries = (*read_index(self._index), entry)
            write_index(self._index, entries)
            write(key_file, _key_pem(key), 0o600)
            write(certificate_file, certificate.public_bytes(Encoding.PEM), 0o644)
            self._write_revocations(issuer, entries)
        return Issued(entry, certificate_file, key_file)

    def _revoke(self, choose: Callable[[Sequence[Entry]], list[Entry]]) -> list[Entry]:
        with _telling(self.directory), self._locked():
            entries = read_index(self._index)
            chosen = [entry for entry in choose(entries) if entry.revoked_at is None]
            now = _now()
            revoked = {
                entry.serial: msgspec.structs.replace(entry, revoked_at=now) for entry in chosen
            }
            entries = tuple(revoked.get(entry.serial, entry) for entry in entries)
            write_index(self._index, entries)
            self._write_revocations(self._issuer(), entries)
        return list(revoked.values())

    def _write_revocations(self, issuer: Issuer, entries: Sequence[Entry]) -> None:
        now = _now()
        # What expired is refused without the list's help.
        revoked = (
            (int(entry.serial, 16), entry.revoked_at)
            for entry in entries
            if entry.revoked_at is not None and entry.not_after > now
        )
        signed = certificates.revocation_list(
            # A list is written in some milliseconds, so the clock is a number that grows.
            issuer,
            time.time_ns(),
            revoked,
            period(now, CRL_LIFETIME),
        )
        durable.replace(self.revocations, signed.public_bytes(Encoding.PEM))

    def _issuer(self) -> Issuer:
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            key = load_pem_private_key(self._key.read_bytes(), None)
        except FileNotFoundError as error:
            raise no_ca(self.directory) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CaError(f"the CA's files in {self.directory} are damaged: {error}") from error
        if not isinstance(key, PrivateKey) or key.public_key() != certificate.public_key():
            raise CaError(f"{self._key} is not the key of {self.certificate}")
        if certificate.not_valid_after_utc <= _now():
            raise CaError(
                f"the CA in {self.directory} has expired; "
                "make a new one and issue every certificate again"
            )
        return Issuer(certificate, key)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # flock(2) takes a directory too, and lets go when the process dies.
        try:
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise no_ca(self.directory) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def check_user(cn: str, tenants: Sequence[str]) -> None:
    """Raise CaError for what a user, or a tenant, cannot be called."""
    for kind, name in (("name", cn), *(("tenant", tenant) for tenant in tenants)):
        if objection := objection_to_name(name):
            raise CaError(f"the {kind} {shown(name)} {objection}")
    if len(set(tenants)) != len(tenants) or len(tenants) > MAX_TENANTS:
        raise CaError(f"a user has at most {MAX_TENANTS} tenants, and none of them twice")


def identities_of(directory: Path) -> list[Identity]:
    """Return everybody who holds a valid certificate of the CA in a directory. Raises CaError."""
    entries = CertificateAuthority(directory).entries()
    return [
        Identity(entry.name, entry.tenants, entry.serial, entry.not_after)
        for entry in entries
        if entry.purpose == "client" and entry.state(_now()) == "valid"
    ]


_Write = Callable[[Path, bytes, int], None]
# Looks at the CA, all entries, and the one that is shown, if it is there.
Check = Callable[[Issuer, Sequence[Entry], Entry | None], None]


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whom a certificate is for; `others` are a client's tenants or a server's hosts."""

    purpose: Literal["client", "server"]
    name: str
    others: tuple[str, ...]


def _certificate(
    issuer: Issuer, key: PublicKey, subject: _Subject, lifetime: timedelta
) -> x509.Certificate:
    valid = period(_now(), lifetime)
    if subject.purpose == "server":
        return certificates.server_certificate(issuer, key, subject.others, valid)
    return certificates.client_certificate(issuer, key, subject.name, subject.others, valid)


def _entry(subject: _Subject, certificate: x509.Certificate) -> Entry:
    client = subject.purpose == "client"
    return Entry(
        serial=format(certificate.serial_number, "x"),
        purpose=subject.purpose,
        name=subject.name,
        tenants=subject.others if client else (),
        hosts=() if client else subject.others,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _check_free(name: str, *files: Path) -> None:
    for file in files:
        if file.exists():
            raise CaError(
                f"{file} is there already; `jobworker ca renew {name}` replaces it with a "
                "new certificate of the same names, --out DIR writes elsewhere"
            )


def _make_private(directory: Path) -> None:
    with _telling(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        raise CaError(
            f"{directory} is open to other users (mode {mode:o}), and a CA's key lies in it; "
            f"run chmod 700 {directory}, or choose another directory"
        )


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _now() -> datetime:
    # Certificates count in whole seconds.
    return datetime.now(UTC).replace(microsecond=0)


@contextlib.contextmanager
def _telling(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaError(f"cannot use {error.filename or directory}: {error.strerror}") from error
