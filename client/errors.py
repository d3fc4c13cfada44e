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


class InvalidRequest(CallFailed):
    """The server takes no such request: a field of it makes no sense, or exceeds a limit."""


class NoSuchJob(CallFailed):
    """There is no such job, or none that one may see."""


class Refused(CallFailed):
    """The policy does not allow it, or the server does not accept one's certificate."""


class NotPossible(CallFailed):
    """It cannot be done as things are: a program that is not there, a job that has ended."""


class LimitReached(CallFailed):
    """A quota, a rate, or what the host has is used up."""


class Unreachable(CallFailed):
    """The server cannot be reached, or did not answer in time."""


class ServerFault(CallFailed):
    """The server failed, or does not know the request; its log says more."""


_FAMILY = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "NOT_FOUND": NoSuchJob,
    "PERMISSION_DENIED": Refused,
    "UNAUTHENTICATED": Refused,
    "FAILED_PRECONDITION": NotPossible,
    "ALREADY_EXISTS": NotPossible,
    "ABORTED": NotPossible,
    "RESOURCE_EXHAUSTED": LimitReached,
    "UNAVAILABLE": Unreachable,
    "DEADLINE_EXCEEDED": Unreachable,
    "INTERNAL": ServerFault,
    "UNKNOWN": ServerFault,
    "DATA_LOSS": ServerFault,
    "UNIMPLEMENTED": ServerFault,
}


def call_failed_with(code: str, message: str, errno: str = "", reason: str = "") -> CallFailed:
    """Return the error for a gRPC status, of the class that its code has."""
    return _FAMILY.get(code, CallFailed)(code, message, errno, reason)


class CertificateEnded(Refused):
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


class JobFailed(ClientError):
    """A job that was to end with 0 did not; `result` is what `run` returns of one that does."""

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


class NotServed(ClientError):
    """There is no output connection to be had: use gRPC."""
