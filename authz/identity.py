"""Who a client is: what its certificate says, once TLS has verified the certificate."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from jobworker.authz.errors import AuthzError
from jobworker.authz.names import objection_to_name, shown

# What a decision costs grows with the identity's tenants.
MAX_TENANTS = 32
# Every other string type can spell one name in several ways (RFC 5280, 4.1.2.4
# wants these two in new certificates).
_PLAIN_STRINGS = (_ASN1Type.UTF8String, _ASN1Type.PrintableString)


E = TypeVar("E", bound=x509.ExtensionType)


class IdentityError(AuthzError):
    """The certificate names nobody who could be served."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, the tenants they belong to, and the certificate that says so.

    `common_name` is the certificate's CN. `tenants` are its OUs in the order of
    the certificate, none twice; there may be none. `serial` is its serial
    number in lower-case hex. `not_after` is when it expires, aware, in UTC.
    """

    common_name: str
    tenants: tuple[str, ...]
    serial: str
    not_after: datetime

    def __str__(self) -> str:
        """Return `cn=alice ou=team-a,team-b`."""
        tenants = f" ou={','.join(self.tenants)}" if self.tenants else ""
        return f"cn={self.common_name}{tenants}"


def identity_from_der(certificate: bytes) -> Identity:
    """Return who a certificate (X.509 v3, DER) stands for.

    Whether it is signed by a trusted CA and valid now is for TLS to verify
    first. This refuses a certificate that a CA would sign and that still must
    not be served: of a CA, not for client authentication, without exactly one
    CN, or with a name outside `names`.

    Raises:
        IdentityError: Says what is wrong with the certificate.
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        subject, extensions = parsed.subject, parsed.extensions
    # cryptography parses lazily, and not all of what it raises is a ValueError.
    except (
        ValueError,
        TypeError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise IdentityError(f"the certificate cannot be read: {error}") from error
    _check_purpose(extensions)
    names = list(_values(subject, NameOID.COMMON_NAME, "CN"))
    if len(names) != 1:
        raise IdentityError(f"the certificate has {len(names)} CNs; it must have exactly one")
    tenants = tuple(_values(subject, NameOID.ORGANIZATIONAL_UNIT_NAME, "OU"))
    if len(tenants) > MAX_TENANTS:
        raise IdentityError(f"the certificate has {len(tenants)} OUs; {MAX_TENANTS} are allowed")
    if len(set(tenants)) != len(tenants):
        raise IdentityError("the certificate names an OU twice")
    return Identity(
        names[0], tenants, format(parsed.serial_number, "x"), parsed.not_valid_after_utc
    )


def _check_purpose(extensions: x509.Extensions) -> None:
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise IdentityError("the certificate is a CA's; a client needs one of its own")
    usage = _extension(extensions, x509.KeyUsage)
    if usage is not None and (usage.key_cert_sign or not usage.digital_signature):
        raise IdentityError("the certificate's key usage must be digitalSignature")
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    # anyExtendedKeyUsage is not enough: a certificate is for what it says.
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise IdentityError(
            "the certificate is not for clients: it lacks the extended key usage clientAuth"
        )


def _extension(extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _values(subject: x509.Name, oid: ObjectIdentifier, label: str) -> Iterator[str]:
    for rdn in subject.rdns:
        for attribute in rdn:
            if attribute.oid != oid:
                continue
            if len(rdn) > 1:
                # A set has no order, so it could not say which tenant is the first.
                raise IdentityError(f"the certificate's {label} shares an RDN with another name")
            if attribute._type not in _PLAIN_STRINGS or not isinstance(attribute.value, str):
                raise IdentityError(
                    f"the certificate's {label} is neither a UTF8String nor a PrintableString"
                )
            if objection := objection_to_name(attribute.value):
                raise IdentityError(
                    f"the certificate's {label} {shown(attribute.value)} {objection}"
                )
            yield attribute.value
