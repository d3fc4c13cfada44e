"""A certificate with its key in one file, as browsers import it: PKCS #12 (RFC 7292)."""

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID

from jobworker.authz.ca import durable
from jobworker.authz.errors import CaError

# What protects the key where the file goes; a shorter one is soon guessed.
LEAST_PASSPHRASE = 8


def check_passphrase(passphrase: str) -> None:
    """Raise CaError for one that is soon guessed."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise CaError(f"a passphrase has at least {LEAST_PASSPHRASE} characters")


def write_bundle(
    certificate: Path, key: Path, authorities: Path, passphrase: str, to: Path
) -> None:
    """Write the file for a certificate, its key, and the authority it is from; all PEM.

    It is there for its owner alone, encrypted by the passphrase: AES-256, with a key that
    takes time to guess.

    Raises:
        CaError: It is there already, and stays as it is; one of them cannot be read; or
            they do not belong together.
    """
    check_passphrase(passphrase)
    try:
        leaf, private, above = (one.read_bytes() for one in (certificate, key, authorities))
        content = _bundle(leaf, private, above, passphrase)
        durable.create(to, content, 0o600)
    except FileExistsError as error:
        raise CaError(f"{to} is there already, and stays as it is; name another file") from error
    except OSError as error:
        raise CaError(f"cannot use {error.filename}: {error.strerror}") from error
    except CaError as error:
        raise CaError(f"{certificate}: {error}") from error


def _bundle(certificate: bytes, key: bytes, authorities: bytes, passphrase: str) -> bytes:
    try:
        leaf, *intermediates = x509.load_pem_x509_certificates(certificate)
        above = x509.load_pem_x509_certificates(authorities)
        private = load_pem_private_key(key, None)
    except TypeError as error:
        raise CaError("the key has a passphrase of its own: decrypt it first") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CaError(f"a certificate, or the key, cannot be read: {error}") from error
    kinds = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if not isinstance(private, kinds) or private.public_key() != leaf.public_key():
        raise CaError("the key does not belong to the certificate")
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = f"{names[0].value!s} (job-worker)" if names else "job-worker"
    encryption = BestAvailableEncryption(passphrase.encode())
    return serialize_key_and_certificates(
        name.encode(), private, leaf, [*intermediates, *above], encryption
    )
