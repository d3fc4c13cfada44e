"""Which server to call, and as whom."""

from dataclasses import dataclass
from pathlib import Path

# As the server listens when its settings do not say otherwise.
DEFAULT_PORT = 50051


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a call to the server needs.

    `server` is HOST:PORT, an IPv6 host in brackets. The files are PEM: the CA
    that signed the server's certificate, one's own certificate, and its private
    key.
    """

    server: str
    ca: Path
    cert: Path
    key: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for connect(2): without an IPv6 host's brackets."""
        host, _, port = self.server.rpartition(":")
        return host.strip("[]"), int(port)
