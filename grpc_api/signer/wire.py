"""What the front and the signer say to each other: a line of JSON each way."""

import msgspec

# A request and a certificate with a few names each, in base64.
MOST_BYTES = 256 * 1024
PATIENCE_SECONDS = 10.0


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As in RenewCertificateRequest."""

    request: bytes
    certificate: bytes
    proof: bytes


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The new certificate (PEM), or why there is none."""

    certificate: bytes = b""
    error: str = ""
