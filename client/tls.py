"""How a client does TLS where it does it without gRPC."""

import ssl
from collections.abc import Sequence

from jobworker.client.endpoint import Endpoint


def client_context(endpoint: Endpoint, protocols: Sequence[str]) -> ssl.SSLContext:
    """Return what to connect to the server with, offering `protocols` (ALPN) in that order.

    Raises:
        ssl.SSLError: A file is damaged, or the key is not the certificate's.
        OSError: A file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(protocols)
    context.load_verify_locations(endpoint.ca)
    context.load_cert_chain(endpoint.cert, endpoint.key)
    return context
