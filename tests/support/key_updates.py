"""A TLS 1.3 client that asks for new keys again and again, which Python's ssl cannot."""

import ctypes
import ctypes.util
import select
import socket

from tests.support.pki import Issued

# openssl/ssl.h
_PEM = 1
_UPDATE_REQUESTED = 1
_WANT_WRITE = 3

_NUMBERS, _POINTER, _TEXT = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_SIGNATURES = {
    "TLS_client_method": (_POINTER, ()),
    "SSL_CTX_new": (_POINTER, (_POINTER,)),
    "SSL_CTX_free": (None, (_POINTER,)),
    "SSL_CTX_use_certificate_file": (_NUMBERS, (_POINTER, _TEXT, _NUMBERS)),
    "SSL_CTX_use_PrivateKey_file": (_NUMBERS, (_POINTER, _TEXT, _NUMBERS)),
    "SSL_new": (_POINTER, (_POINTER,)),
    "SSL_free": (None, (_POINTER,)),
    "SSL_set_alpn_protos": (_NUMBERS, (_POINTER, _TEXT, ctypes.c_uint)),
    "SSL_set_fd": (_NUMBERS, (_POINTER, _NUMBERS)),
    "SSL_connect": (_NUMBERS, (_POINTER,)),
    "SSL_key_update": (_NUMBERS, (_POINTER, _NUMBERS)),
    "SSL_do_handshake": (_NUMBERS, (_POINTER,)),
    "SSL_get_error": (_NUMBERS, (_POINTER, _NUMBERS)),
}


class KeyUpdates:
    """OpenSSL's client over a connected socket, which stays the caller's."""

    def __init__(self, connection: socket.socket, client: Issued) -> None:
        self._connection = connection
        self._lib = ctypes.CDLL(ctypes.util.find_library("ssl") or "libssl.so.3")
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self._context = self._lib.SSL_CTX_new(self._lib.TLS_client_method())
        certificate, key = str(client.certificate).encode(), str(client.key).encode()
        assert self._lib.SSL_CTX_use_certificate_file(self._context, certificate, _PEM) == 1
        assert self._lib.SSL_CTX_use_PrivateKey_file(self._context, key, _PEM) == 1
        self._tls = self._lib.SSL_new(self._context)
        assert self._lib.SSL_set_alpn_protos(self._tls, b"\x02h2", 3) == 0
        connection.setblocking(True)
        assert self._lib.SSL_set_fd(self._tls, connection.fileno()) == 1
        assert self._lib.SSL_connect(self._tls) == 1
        connection.setblocking(False)

    def ask_until_stuck(self, seconds: float, at_most: int) -> int:
        """Ask for new keys, reading no answer, until nothing can be sent for `seconds`.

        Returns how often it could ask, up to `at_most`.
        """
        for asked in range(at_most):
            assert self._lib.SSL_key_update(self._tls, _UPDATE_REQUESTED) == 1
            while (result := self._lib.SSL_do_handshake(self._tls)) != 1:
                assert self._lib.SSL_get_error(self._tls, result) == _WANT_WRITE
                if not select.select([], [self._connection], [], seconds)[1]:
                    return asked
        return at_most

    def close(self) -> None:
        """Free what OpenSSL holds."""
        self._lib.SSL_free(self._tls)
        self._lib.SSL_CTX_free(self._context)
