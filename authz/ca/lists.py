"""Files of PEM: the revocation lists of several CAs, and which CAs a file holds."""

from pathlib import Path

from cryptography import x509

from jobworker.authz.ca import durable
from jobworker.authz.errors import CaError

_END = b"-----END X509 CRL-----"


def put_list(new: Path, to: Path) -> None:
    """Put a CA's list in place of its former one in the file `to`; those of other CAs stay.

    Raises:
        CaError: One of the files is no list, or cannot be read or written.
    """
    try:
        content = new.read_bytes()
        issuer = x509.load_pem_x509_crl(content).issuer
        pieces = to.read_bytes().split(_END)[:-1] if to.exists() else []
        lists = [(piece + _END).lstrip() + b"\n" for piece in pieces]
        others = [one for one in lists if x509.load_pem_x509_crl(one).issuer != issuer]
        durable.replace(to, b"".join([*others, content]))
    except OSError as error:
        raise CaError(f"cannot use {error.filename or to}: {error.strerror}") from error
    except ValueError as error:
        raise CaError(f"{to} is no file of revocation lists: {error}") from error


def is_trusted(authority: Path, authorities: Path) -> bool:
    """Whether a CA's certificate is among those of a file. Raises CaError."""
    try:
        own = x509.load_pem_x509_certificate(authority.read_bytes())
        return own in x509.load_pem_x509_certificates(authorities.read_bytes())
    except OSError as error:
        raise CaError(f"cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise CaError(f"{authority} or {authorities} holds no certificate: {error}") from error
