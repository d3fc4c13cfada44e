"""Requests for certificates (PKCS #10, RFC 2986): the key they are for stays where it was made."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from jobworker.authz.ca.certificates import PublicKey
from jobworker.authz.errors import CaError

# Of a request with a few names; what is larger is none.
MOST_BYTES = 64 * 1024
LEAST_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for, who has shown that they hold the key. The names are theirs to say.

    `fingerprint` is the key's, as ssh(1) has them, for people to compare.
    """

    cn: str
    tenants: tuple[str, ...]
    key: PublicKey
    fingerprint: str


def make_request(key: ec.EllipticCurvePrivateKey, cn: str, tenants: Sequence[str]) -> bytes:
    """Return a request (PEM) for a user of these tenants."""
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, name) for name in tenants]
    subject = x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def read_request(content: bytes) -> Asked:
    """Return what a request (PEM) asks for; nothing but names and key is looked at.

    Raises:
        CaError: It is none, is not signed by its own key, or its key is too weak.
    """
    try:
        if len(content) > MOST_BYTES:
            raise ValueError("it is too long")
        request = x509.load_pem_x509_csr(content)
        key = request.public_key()
        signed = request.is_signature_valid
        subject = request.subject
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CaError(f"not a certificate request in PEM form: {error}") from error
    if not signed:
        raise CaError("the request is not signed by the key that it is for")
    return Asked(
        cn=_one(subject, NameOID.COMMON_NAME),
        tenants=tuple(_texts(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)),
        key=_strong(key),
        fingerprint=fingerprint(_strong(key)),
    )


def fingerprint(key: PublicKey) -> str:
    """Return SHA256: and the base64 of the hash of the key (SubjectPublicKeyInfo)."""
    content = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
    return f"SHA256:{digest.rstrip('=')}"


def _strong(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= LEAST_RSA_BITS:
        return key
    raise CaError(
        "the request's key is of a kind that is not taken; "
        f"make one with P-256 or P-384, or RSA of {LEAST_RSA_BITS} bits or more"
    )


def _one(subject: x509.Name, kind: x509.ObjectIdentifier) -> str:
    texts = _texts(subject, kind)
    if len(texts) != 1:
        raise CaError(f"the request names {len(texts)} users (CN), and must name one")
    return texts[0]


def _texts(subject: x509.Name, kind: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in subject.get_attributes_for_oid(kind)]
