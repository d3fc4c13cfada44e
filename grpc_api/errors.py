"""What can go wrong in the gRPC API, as one family of exceptions."""


class ApiError(Exception):
    """The base of every error this package raises on purpose."""


class TlsError(ApiError):
    """TLS cannot be served with these files or this OpenSSL; the message says which and why."""


class ListenError(ApiError):
    """The server cannot listen on the address it was given."""


class HandshakeRefused(ApiError):
    """A connection did not get through the TLS handshake; the message is the reason."""


class TurnedAway(ApiError):
    """A verified client has reached a limit of connections; the message is for the client."""


class Http2Abuse(ApiError):
    """A client sends what no client of good will does; the message completes `ended: `."""


class BackendUnavailable(ApiError):
    """gRPC does not take the edge's connections."""


class BackendExposed(ApiError):
    """Other users of this host can reach the socket on which gRPC trusts the edge."""


class ConfigError(ApiError):
    """The server's settings cannot be used; the message names the setting, or file and place.

    `setting` is its name, such as metrics.listen, with a dot before each part;
    empty if it is none in particular, or the place is told.
    """

    def __init__(self, message: str, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class AdminUnreachable(ApiError):
    """Nobody answers on the administrator's socket."""


class AdminRefused(ApiError):
    """The administrator's socket is not for this user."""


class CannotServe(ApiError):
    """The settings are good, but there is no serving with them now: another service is there."""


class UndeclaredMethod(ApiError):
    """A method of the service has no declared action: nobody decided who may call it."""


class ReaderGone(ApiError):
    """The client of an output connection has ended it, or it broke."""
