"""Who is behind each peer name that gRPC reports."""

import secrets

from jobworker.authz.identity import Identity, IdentityError
from jobworker.grpc_api.errors import TurnedAway

# A client that may call, or the error that each of its calls is to end with.
Guest = Identity | IdentityError | TurnedAway


class Peers:
    """The clients now connected, under the names their relayed connections are bound to.

    A name is an abstract unix address (unix(7)): bound by the edge before it
    connects to gRPC and until that connection is closed, so that nobody else
    can have it meanwhile, and random, so that nobody can take it beforehand.
    """

    def __init__(self) -> None:
        self._clients: dict[str, tuple[Guest, str]] = {}

    def register(self, client: Guest, address: str) -> str:
        """Return a new name for a client that connects from an address."""
        name = f"jobworker-{secrets.token_hex(16)}"
        self._clients[peer_of(name)] = client, address
        return name

    def forget(self, name: str) -> None:
        """End the registration of a name, if it has one."""
        self._clients.pop(peer_of(name), None)

    def identity_of(self, peer: str) -> Identity | None:
        """Return who is behind what `grpc.ServicerContext.peer` returned; None if nobody is.

        Raises:
            IdentityError: The client's certificate is good but names no identity.
            TurnedAway: The client has more connections than it may.
        """
        client, _ = self._clients.get(peer, (None, ""))
        if isinstance(client, IdentityError | TurnedAway):
            # A new one, for each raise adds to the traceback of its exception.
            raise type(client)(str(client)) from client
        return client

    def address_of(self, peer: str) -> str:
        """Return the network address behind such a name, "" if nobody has it."""
        return self._clients.get(peer, (None, ""))[1]


def peer_of(name: str) -> str:
    """What gRPC reports for a client bound to an abstract name (doc/naming.md in grpc)."""
    return f"unix-abstract:{name}"
