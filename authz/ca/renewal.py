"""A certificate anew, for the same user, on the word of the one that they have.

Who asks shows that they hold the key of a certificate that is good: they sign the request
for the new one with it. So what carries the request need not be trusted.
"""

from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from jobworker.authz.ca.authority import CertificateAuthority
from jobworker.authz.ca.certificates import Issuer
from jobworker.authz.ca.index import Entry, of_user
from jobworker.authz.ca.requests import MOST_BYTES, read_request
from jobworker.authz.errors import CaError

# So that no signature made for anything else is one of these.
_ABOUT = b"jobworker certificate renewal\0"
# Of one user at a time: no certificate is taken back by its renewal.
MOST_VALID = 16


def prove(key: object, request: bytes) -> bytes:
    """Return the signature of a request (PEM) by the key of a certificate.

    Raises:
        CaError: The key is of a kind that signs none.
    """
    text = _ABOUT + x509.load_pem_x509_csr(request).public_bytes(Encoding.DER)
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(text, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PrivateKey():
            return key.sign(text)
        case rsa.RSAPrivateKey():
            return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    raise CaError("the key is of a kind that cannot sign a request for another certificate")


def renewed(
    authority: CertificateAuthority,
    certificate: bytes,
    request: bytes,
    proof: bytes,
    lifetime: timedelta,
) -> tuple[Entry, bytes]:
    """Return a new certificate (PEM), and its entry in the CA's index.

    `certificate` and `request` are PEM: the one that is still good, and the request for the
    new one with the same names; `proof` is what `prove` returns.

    Raises:
        CaError: It is not renewed; says why.
    """
    if len(certificate) > MOST_BYTES:
        raise CaError("the certificate is too long")
    try:
        formerly = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise CaError(f"not a certificate in PEM form: {error}") from error
    asked = read_request(request)
    _check_proof(formerly, request, proof)

    def check(issuer: Issuer, entries: Sequence[Entry], entry: Entry | None) -> None:
        known = _issued(formerly, issuer, entry)
        if (asked.cn, asked.tenants) != (known.name, known.tenants):
            raise CaError("the request is for other names than the certificate's")
        if len(of_user(entries, asked.cn, authority.now())) >= MOST_VALID:
            raise CaError(
                f"{asked.cn} has {MOST_VALID} valid certificates, which is the most that are "
                "renewed; the administrator may revoke some"
            )

    serial = format(formerly.serial_number, "x")
    return authority.certify(asked.key, asked.cn, asked.tenants, lifetime, serial, check)


def _issued(formerly: x509.Certificate, issuer: Issuer, entry: Entry | None) -> Entry:
    try:
        formerly.verify_directly_issued_by(issuer.certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CaError("the certificate is another CA's") from error
    if entry is None or entry.purpose != "client":
        raise CaError("the CA has issued no such certificate to a user")
    return entry


def _check_proof(formerly: x509.Certificate, request: bytes, proof: bytes) -> None:
    text = _ABOUT + x509.load_pem_x509_csr(request).public_bytes(Encoding.DER)
    try:
        key = formerly.public_key()
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(proof, text, ec.ECDSA(hashes.SHA256()))
            case ed25519.Ed25519PublicKey():
                key.verify(proof, text)
            case rsa.RSAPublicKey():
                key.verify(proof, text, padding.PKCS1v15(), hashes.SHA256())
            case _:
                raise CaError("the certificate's key is of a kind that is not renewed")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise CaError("the request is not signed by the certificate's key") from error
