"""From when and until when a certificate is valid, without a library for certificates.

Those take longer to import than a command may take. It is read from the DER
encoding (X.690) of RFC 5280's Certificate, of which it is the fifth part or so.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from jobworker.client.errors import BadFile

_PEM = re.compile(b"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


@dataclass(frozen=True, slots=True)
class Validity:
    """The first and the last moment at which a certificate is valid, in UTC."""

    begin: datetime
    end: datetime


def validity_of(path: Path) -> Validity:
    """Return the validity of the first certificate in a PEM file.

    Raises:
        BadFile: It cannot be read, or holds no certificate.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile(f"cannot read the certificate {path}: {error.strerror}") from error
    found = _PEM.search(content)
    try:
        if found is not None:
            return validity_in(base64.b64decode(found[1]))
    except (IndexError, ValueError, binascii.Error) as error:
        raise BadFile(f"the certificate file {path} is damaged") from error
    raise BadFile(f"the certificate file {path} holds none in PEM form")


class _Element(NamedTuple):
    """An element's tag, and where its content begins and ends."""

    tag: int
    begin: int
    end: int


def validity_in(certificate: bytes) -> Validity:
    """Return the validity of a certificate in DER. Raises IndexError or ValueError for none."""
    signed = _element(certificate, _element(certificate, 0).begin)
    first = _element(certificate, signed.begin)
    serial = _element(certificate, first.end) if first.tag == _VERSION else first
    algorithm = _element(certificate, serial.end)
    issuer = _element(certificate, algorithm.end)
    validity = _element(certificate, issuer.end)
    begin = _element(certificate, validity.begin)
    end = _element(certificate, begin.end)
    return Validity(_time(certificate, begin), _time(certificate, end))


def _element(data: bytes, at: int) -> _Element:
    """The element at an offset (X.690, 8.1): a tag of one byte, the length, the content."""
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    if begin + length > len(data):
        raise ValueError("cut short")
    return _Element(data[at], begin, begin + length)


def _time(data: bytes, element: _Element) -> datetime:
    """A UTCTime or GeneralizedTime, both to end in Z (RFC 5280, 4.1.2.5)."""
    text = data[element.begin : element.end].decode("ascii")
    if element.tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
