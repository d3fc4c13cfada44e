"""A gRPC channel to a server, made of the certificate files as they are at the moment.

Modules that import this one import gRPC, which takes a while.
"""

import json
import threading
from pathlib import Path
from typing import NamedTuple

import grpc

from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import BadFile


def _service_config() -> str:
    """Return the retry policy (gRFC A6): calls that may be repeated outlast a front's restart.

    Signal may not: a signal that arrives twice is another thing than one.
    """
    repeatable = (
        *("Start", "Stop", "QueryStatus", "Wait", "List", "WhoAmI", "CanI", "Rights"),
        *("WouldPrune", "Pause", "Resume"),
    )
    service = "workerservice.WorkerService"
    policy = {
        "maxAttempts": 5,
        # Two seconds in all, on average: as long as a connection fails, so do calls, and a
        # front that begins on a busy host takes a while.
        "initialBackoff": "0.25s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": service, "method": method} for method in repeatable]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})


_OPTIONS = (
    ("grpc.service_config", _service_config()),
    # gRPC alone would heed https_proxy and grpc_proxy; output connections do not.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A follower of a quiet job notices a dead path within a minute (a NAT forgets it, a
    # host vanishes). Servers of before took pings for abuse; they are then sent less often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A ping that gRPC sent for its own reasons (BDP) stands in for one of keepalive's.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class _Files(NamedTuple):
    """What is in an endpoint's files."""

    ca: bytes
    key: bytes
    cert: bytes


class Channel:
    """A channel that can be made anew from files that were renewed. Close it."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect to nothing yet. Raises BadFile."""
        self._endpoint = endpoint
        self._files = _read(endpoint)
        self._changing = threading.Lock()
        self.current = self._open()
        # Calls of other threads may still be under way on them.
        self._former: list[grpc.Channel] = []

    def renew(self) -> bool:
        """Go on with a channel of the files as they are now; whether they are others than before.

        Files that will not do, as while they are being replaced, count as the same.
        """
        with self._changing:
            try:
                files = _read(self._endpoint)
            except BadFile:
                return False
            if files == self._files:
                return False
            self._files = files
            self._former.append(self.current)
            self.current = self._open()
            return True

    def _open(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(*self._files)
        return grpc.secure_channel(self._endpoint.server, credentials, _OPTIONS)

    def close(self) -> None:
        """Hang up."""
        for channel in (*self._former, self.current):
            channel.close()


class AsyncChannel:
    """The same for asyncio. Close it."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect to nothing yet. Raises BadFile."""
        self._endpoint = endpoint
        self._files = _read(endpoint)
        self._opened: list[grpc.aio.Channel] = []

    def current(self) -> grpc.aio.Channel:
        """A channel of the files as they are now; of before, while they are being replaced."""
        try:
            files = _read(self._endpoint)
        except BadFile:
            files = self._files
        if not self._opened or files != self._files:
            self._files = files
            credentials = grpc.ssl_channel_credentials(*files)
            channel = grpc.aio.secure_channel(self._endpoint.server, credentials, _OPTIONS)
            self._opened.append(channel)
        return self._opened[-1]

    async def close(self) -> None:
        """Hang up."""
        for channel in self._opened:
            await channel.close(None)


def _read(endpoint: Endpoint) -> _Files:
    return _Files(
        ca=_pem(endpoint.ca, "CA certificate", "CERTIFICATE"),
        key=_pem(endpoint.key, "client key", "PRIVATE KEY"),
        cert=_pem(endpoint.cert, "client certificate", "CERTIFICATE"),
    )


def _pem(path: Path, meaning: str, label: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile(f"cannot read the {meaning} {path}: {error.strerror}") from error
    if f"{label}-----".encode() not in content:
        raise BadFile(f"the {meaning} {path} is not one in PEM form (no BEGIN {label} line)")
    # gRPC has no way to ask for its password.
    if b"ENCRYPTED" in content:
        raise BadFile(
            f"the {meaning} {path} is encrypted; give one that is not, in a file only you can read"
        )
    return content
