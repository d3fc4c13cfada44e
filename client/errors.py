"""What goes wrong between a client and a server. Imports nothing, so that it costs nothing."""


class ClientError(Exception):
    """Whatever a client of a server raises by itself."""


class BadFile(ClientError):
    """A certificate or key file cannot be read, or is not what it has to be."""


class CallFailed(ClientError):
    """The server did not do what it was asked, or could not be asked.

    `code` is the name of the gRPC status, such as NOT_FOUND; `message` is what
    came with it, the server's own words unless `code` is UNAVAILABLE. `errno` is
    the name of the errno(3) for which a program could not be executed, such as
    ENOENT; empty when the failure is another. `reason` is the server's word for it,
    such as NO_SUCH_JOB, if it gave one.
    """

    def __init__(self, code: str, message: str, errno: str = "", reason: str = "") -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.errno = errno
        self.reason = reason


class CertificateEnded(CallFailed):
    """One's certificate is not accepted any more, by a server that did accept one before.

    `sought` is what the connection was needed for, in words; `message` says why.
    """

    def __init__(self, sought: str, message: str) -> None:
        super().__init__("UNAUTHENTICATED", message)
        self.sought = sought


class GaveUp(ClientError):
    """A broken connection did not come back in time; `last` is how the last attempt failed."""

    def __init__(self, sought: str, last: ClientError) -> None:
        """`sought` is what the connection was needed for, in words."""
        super().__init__(f"gave up on {sought}: {last}")
        self.sought = sought
        self.last = last


class NotServed(ClientError):
    """There is no output connection to be had: use gRPC."""
