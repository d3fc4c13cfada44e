"""One TLS session, apart from any socket: ciphertext in, plaintext out, and back.

Kept apart because uvloop's own TLS transport drops the alert that tells a
client why its handshake was refused, and waits up to 30 seconds for a client
that is to be cut off (its issue 471).
"""

import ssl
from collections.abc import Iterator

from jobworker.grpc_api.edge.tls import FOR_CLIENTS, HTTP1, HTTP2, SUITE
from jobworker.grpc_api.errors import HandshakeRefused

# RFC 8446, 5.1: no record carries more.
_RECORD_BYTES = 16_384

_NO_PROTOCOL = {
    HTTP1: f"it does not offer HTTP/1.1 (ALPN {HTTP1}), which browsers speak here",
    HTTP2: f"it does not offer HTTP/2 (ALPN {HTTP2}), which gRPC needs",
}
# OpenSSL's reasons that a person would not understand, or not at once.
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "NO_SHARED_CIPHER": f"it does not offer {SUITE}",
    "UNSUPPORTED_PROTOCOL": "it does not offer TLS 1.3",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it speaks HTTP without TLS",
}
# Those among its reasons to refuse a certificate that are the server's own fault.
_SERVERS_FAULT = {
    "CRL has expired": "the server's revocation list has expired; put a new one in its place",
    "unable to get certificate CRL": "the server has no revocation list of its authority",
}


class TlsSession:
    """The server's half of a session; nothing here waits or does I/O.

    `feed` takes what the network brought; after any call, `outgoing` is to be
    sent to it.
    """

    def __init__(self, context: ssl.SSLContext, protocols: tuple[str, ...] = FOR_CLIENTS) -> None:
        """`protocols` are those of the context, of which the last is what most speak."""
        self._protocols = protocols
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ended = False

    def feed(self, ciphertext: memoryview) -> None:
        """Take bytes from the network."""
        self._incoming.write(ciphertext)

    def outgoing(self) -> bytes:
        """Return what the network is to be sent, and forget it."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete.

        Raises:
            HandshakeRefused: OpenSSL will not go on; `outgoing` holds the alert.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise HandshakeRefused(_reason(error)) from error
        return True

    def check_agreed(self) -> None:
        """Check what the handshake agreed on, beside the context's promises.

        Raises:
            HandshakeRefused: It is not TLS 1.3 with the one suite and a known protocol.
        """
        cipher = self._tls.cipher()
        suite = cipher[0] if cipher else "none"
        if self._tls.version() != "TLSv1.3" or suite != SUITE:
            raise HandshakeRefused(f"the suite agreed on is {self._tls.version()} {suite}")
        if self.protocol not in self._protocols:
            raise HandshakeRefused(_NO_PROTOCOL[self._protocols[-1]])

    @property
    def protocol(self) -> str | None:
        """What the handshake agreed to speak: one of the protocols or, if nothing, None."""
        return self._tls.selected_alpn_protocol()

    def certificate(self) -> bytes:
        """Return the client's verified certificate, DER.

        Raises:
            HandshakeRefused: There is none.
        """
        certificate = self._tls.getpeercert(binary_form=True)
        if not certificate:
            raise HandshakeRefused(_REASONS["PEER_DID_NOT_RETURN_A_CERTIFICATE"])
        return certificate

    def decrypt(self) -> Iterator[bytes]:
        """Yield the plaintext of what was fed, at most one record (16 KiB) at a time.

        When the client said that it will send no more, `ended` becomes true.

        Raises:
            ssl.SSLError: The client broke the protocol, or someone tampered.
        """
        tls, incoming = self._tls, self._incoming
        # SSLWantReadError costs as much as decrypting a record, so it is left
        # to the case where the last record is not whole yet.
        while incoming.pending or tls.pending():
            try:
                plaintext = tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                plaintext = b""
            if not plaintext:
                self.ended = True
                return
            yield plaintext

    def encrypt(self, *plaintexts: memoryview | bytes) -> bytes:
        """Return the records to send for what is not empty of `plaintexts`.

        Raises:
            ssl.SSLError: The session has failed before.
        """
        for plaintext in plaintexts:
            if plaintext:
                self._tls.write(plaintext)
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """Return what tells the client that nothing more will come (RFC 8446, 6.1)."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            # It either waits for the client's own, which nobody needs, or the
            # session has failed and there is nobody to tell.
            return self._outgoing.read()
        return self._outgoing.read()


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _SERVERS_FAULT.get(error.verify_message, error.verify_message)
        return f"its certificate is refused: {reason}"
    reason = error.reason or str(error)
    return _REASONS.get(reason, reason.replace("_", " ").lower())
