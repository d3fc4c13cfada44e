"""How many connections there may be, of all clients and of each."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobworker.grpc_api.errors import TurnedAway


@dataclass(frozen=True)
class EdgeLimits:
    """The edge's limits on what clients can make it hold.

    Of `handshakes` that are under way at once, the oldest gives way to a new
    one: whoever opens connections and says nothing keeps nobody out. They
    count apart from `connections`, which are those of verified clients.
    """

    connections: int = 1024
    connections_per_name: int = 128
    handshakes: int = 256
    handshake_seconds: float = 10.0
    # Of one call's headers; gRPC itself answers those above 16 KiB with an error.
    header_bytes: int = 64 * 1024
    # Resets, pings, settings and the like of one connection: so many at once, and a
    # tenth of that each second. A client may end all its calls at once.
    idle_frames: int = 1200
    # How long a client is listened to after its last byte was sent, so that it
    # can read it: closing on unread input resets the connection (RFC 1122, 4.2.2.13).
    farewell_seconds: float = 2.0

    @property
    def descriptors(self) -> int:
        """The file descriptors this takes at most, of which three for each that is relayed.

        They are the client's, the edge's to gRPC, and gRPC's own. A client that
        is turned away is relayed for a moment, too.
        """
        return 3 * (self.connections + self.handshakes)


class Admission:
    """Counts verified connections against the limits."""

    def __init__(self, limits: EdgeLimits) -> None:
        self._limits = limits
        self._by_name: Counter[str] = Counter()

    @contextmanager
    def admit(self, name: str) -> Iterator[None]:
        """Count one connection of the client `name` for as long as the block runs.

        Raises:
            TurnedAway: A limit is reached.
        """
        if self._by_name.total() >= self._limits.connections:
            raise TurnedAway(
                f"the server has {self._limits.connections} connections, its limit; try again later"
            )
        if self._by_name[name] >= self._limits.connections_per_name:
            raise TurnedAway(
                f"{name} has {self._limits.connections_per_name} connections to the server, "
                "its limit; close some and try again"
            )
        self._by_name[name] += 1
        try:
            yield
        finally:
            self._by_name[name] -= 1
            if not self._by_name[name]:
                del self._by_name[name]
