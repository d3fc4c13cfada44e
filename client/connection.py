"""A connection to the server: mutual TLS over gRPC, one typed method for each call.

Modules that import this one import gRPC, which takes a while.
"""

import json
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

# Before gRPC's import, which reads it: its own log lines would stand between
# the command's, which say the same in words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from jobworker.cli.errors import CliError, SettingsError, request_failed, tell
from jobworker.cli.settings import Settings
from jobworker.client.diagnosis import why_unreachable
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:
    from jobworker.client.output_connection import OutputConnection

# For calls that the server answers without waiting for a process to end.
PROMPT_SECONDS = 30.0


def _service_config() -> str:
    """Return the retry policy (gRFC A6): calls that may be repeated outlast a front's restart.

    Signal may not: a signal that arrives twice is another thing than one.
    """
    repeatable = ("Start", "Stop", "QueryStatus", "Wait", "List", "WhoAmI", "CanI")
    service = "workerservice.WorkerService"
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": service, "method": method} for method in repeatable]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})


_CHANNEL_OPTIONS = (
    ("grpc.service_config", _service_config()),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # So that a follower notices a server that went without a word. A gRPC
    # server hangs up on who pings it more often than every five minutes.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class Service:
    """The server's calls, as proto/workerservice.proto has them.

    Each raises grpc.RpcError when it fails; `failure` turns that into words.
    """

    def __init__(self, channel: grpc.Channel, settings: Settings) -> None:
        self._stub = WorkerServiceStub(channel)
        self._settings = settings

    @property
    def server(self) -> str:
        """HOST:PORT."""
        return self._settings.server

    def start(self, request: pb.StartRequest) -> pb.StartResponse:
        """Start a job."""
        reply: pb.StartResponse = self._stub.Start(request, timeout=PROMPT_SECONDS)
        return reply

    def stop(self, request: pb.StopRequest) -> pb.StopResponse:
        """End a job; without `noWait`, return when it has ended."""
        seconds = PROMPT_SECONDS if request.noWait else None
        reply: pb.StopResponse = self._stub.Stop(request, timeout=seconds)
        return reply

    def signal(self, request: pb.SignalRequest) -> None:
        """Send a signal to a job's main process."""
        self._stub.Signal(request, timeout=PROMPT_SECONDS)

    def status(self, job: str) -> pb.QueryStatusResponse:
        """Return what there is to know of a job, given by its ID or a prefix of it."""
        request = pb.QueryStatusRequest(jobID=job)
        reply: pb.QueryStatusResponse = self._stub.QueryStatus(request, timeout=PROMPT_SECONDS)
        return reply

    def wait(self, request: pb.WaitRequest) -> pb.QueryStatusResponse:
        """Return a job's status when it has ended, however long that takes."""
        reply: pb.QueryStatusResponse = self._stub.Wait(request)
        return reply

    def output(self, request: pb.GetOutputRequest) -> Generator[pb.GetOutputResponse, None, None]:
        """Yield a job's output as the server sends it; closing ends the call."""
        call = self._stub.GetOutput(request)
        try:
            yield from call
        finally:
            call.cancel()

    def output_connection(self) -> "OutputConnection":
        """Connect anew, for the output of one job without gRPC. Raises NotServed."""
        from jobworker.client.output_connection import OutputConnection

        return OutputConnection(self._settings)

    def list(self, request: pb.ListRequest, patience: float = PROMPT_SECONDS) -> pb.ListResponse:
        """Return a page of the jobs that one may see, within `patience` seconds."""
        reply: pb.ListResponse = self._stub.List(request, timeout=patience)
        return reply

    def remove(self, job: str) -> None:
        """Forget a job that has ended."""
        self._stub.Remove(pb.RemoveRequest(jobID=job), timeout=PROMPT_SECONDS)

    def prune(self, request: pb.PruneRequest) -> pb.PruneResponse:
        """Forget the jobs that have ended, however many."""
        reply: pb.PruneResponse = self._stub.Prune(request)
        return reply

    def whoami(self) -> pb.WhoAmIResponse:
        """Return who the server takes one for."""
        reply: pb.WhoAmIResponse = self._stub.WhoAmI(pb.WhoAmIRequest(), timeout=PROMPT_SECONDS)
        return reply

    def can_i(self, request: pb.CanIRequest) -> pb.CanIResponse:
        """Return whether one has the right to do something, and why."""
        reply: pb.CanIResponse = self._stub.CanI(request, timeout=PROMPT_SECONDS)
        return reply

    def failure(self, error: grpc.RpcError) -> CliError:
        """Return what to tell of a failed call.

        Of a server that cannot be reached the reason is looked for, which may
        take some seconds.
        """
        code, message = outcome(error)
        if code is grpc.StatusCode.UNAVAILABLE:
            message = why_unreachable(self._settings, message)
        return request_failed(
            code.name,
            message,
            server=self.server,
            certificate=str(self._settings.cert),
            errno=_errno(error),
        )


class OutputFailed(grpc.RpcError):
    """An output connection ended with a gRPC status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self._code = code
        self._message = message

    def code(self) -> grpc.StatusCode:
        """Return the status (grpc.Call)."""
        return self._code

    def details(self) -> str:
        """Return the status's words (grpc.Call)."""
        return self._message


def outcome(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Return the status code and message that a call ended with."""
    # grpc raises nothing but calls, though its types do not say so.
    if not isinstance(error, grpc.Call | OutputFailed):
        return grpc.StatusCode.UNKNOWN, str(error)
    return error.code(), error.details() or ""


def _errno(error: grpc.RpcError) -> str:
    """Return the errno(3) that the server's google.rpc.ErrorInfo names, "" if it names none."""
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    trailers: Iterable[tuple[str, bytes]] = ()
    if isinstance(error, grpc.Call):
        trailers = error.trailing_metadata() or ()
    info = ErrorInfo()
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.metadata.get("errno", ""))
    return ""


@contextmanager
def connect(settings: Settings) -> Iterator[Service]:
    """Give a Service; nothing is sent before its first call.

    Raises:
        SettingsError: A certificate or key file cannot be read or is none.
        CliError: A call failed inside the block and nobody caught its RpcError.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(settings.ca, "CA certificate", "CERTIFICATE"),
        private_key=_pem(settings.key, "client key", "PRIVATE KEY"),
        certificate_chain=_pem(settings.cert, "client certificate", "CERTIFICATE"),
    )
    _warn_of_open_key(settings.key)
    with grpc.secure_channel(settings.server, credentials, _CHANNEL_OPTIONS) as channel:
        service = Service(channel, settings)
        try:
            yield service
        except grpc.RpcError as error:
            raise service.failure(error) from error


def _pem(path: Path, meaning: str, label: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the {meaning} {path}: {error.strerror}") from error
    if f"{label}-----".encode() not in content:
        raise SettingsError(f"the {meaning} {path} is not one in PEM form (no BEGIN {label} line)")
    # gRPC has no way to ask for its password.
    if b"ENCRYPTED" in content:
        raise SettingsError(
            f"the {meaning} {path} is encrypted; give one that is not, in a file only you can read"
        )
    return content


def _warn_of_open_key(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & 0o044:
        tell(
            f"warning: others can read the key {path} (mode {mode & 0o777:04o}); "
            f"run `chmod 600 {path}`"
        )
