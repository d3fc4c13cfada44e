"""The server's settings, as its processes have them; settings_file.py reads them."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from jobworker.grpc_api.errors import ConfigError
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    MAX_OUTPUT_BYTES,
    MIN_OUTPUT_BYTES,
    Size,
    SupervisorConfig,
)


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files: the server's certificate and key, the CA both sides trust, its CRL.

    The CRL is demanded: it lies beside `ca` unless it is named, and there is none
    only where `crl: null` says so. `renewal` is the socket of `jobworker ca signer`, none
    where users' certificates are not renewed.
    """

    certificate: str
    key: str
    ca: str
    crl: str | msgspec.UnsetType | None = msgspec.UNSET
    renewal: str = ""

    def revocations(self) -> str | None:
        """The file of the CRL: what is named, or ca.crl for ca.crt; None for no CRL."""
        if self.crl is msgspec.UNSET:
            return str(Path(self.ca).with_suffix(".crl"))
        return self.crl or None


class ConnectionsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many connections at once, in all and for one CN, and calls at once on each.

    `handshake_seconds` is how long a handshake may take, `stall_seconds` how
    long the reader of a stream may take nothing before it is cut.
    """

    total: int = 1024
    per_name: int = 128
    streams: int = 1000
    handshake_seconds: float = 10.0
    stall_seconds: float = 60.0


# In the runtime directory; no other name of a socket there is longer.
ADMIN_SOCKET = "admin.sock"
# Generous for a log, and far from what a job in an endless loop would write.
DEFAULT_OUTPUT_BYTES = 10 * 2**30

_OVERFLOWS = {
    "rotate": pb.OUTPUT_OVERFLOW_ROTATE,
    "stop-recording": pb.OUTPUT_OVERFLOW_STOP_RECORDING,
    "stop-job": pb.OUTPUT_OVERFLOW_STOP_JOB,
}


class OutputLimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a job's output is kept: bytes, and bytes per second; 0 for all.

    `bytes` -1 is for DEFAULT_OUTPUT_BYTES unless a job asks for another limit; any
    other number is the most that a job may have.

    `overflow` is "rotate" (the oldest is dropped), "stop-recording" or
    "stop-job".
    """

    bytes: Size = -1
    overflow: str = "rotate"
    rate: Size = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what the supervisor would not take."""
        if self.overflow not in _OVERFLOWS:
            raise ValueError(f"overflow must be one of {', '.join(_OVERFLOWS)}")
        if self.bytes < -1:
            raise ValueError("bytes of output must be -1, 0 or more")
        for value in (max(0, self.bytes), self.rate):
            if value and not MIN_OUTPUT_BYTES <= value <= MAX_OUTPUT_BYTES:
                raise ValueError(f"an output limit must be 0 or at least {MIN_OUTPUT_BYTES}")


class OutputLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that is kept of a job's output: of any, and of those of some tenants."""

    default: OutputLimitConfig = OutputLimitConfig()
    tenants: dict[str, OutputLimitConfig] = {}

    def resolve(self, asked: pb.OutputLimit, tenant: str) -> pb.OutputLimit:
        """What holds for a job: what was asked for, within what its tenant may have."""
        most = self.tenants.get(tenant, self.default)
        return pb.OutputLimit(
            bytes=(
                asked.bytes or DEFAULT_OUTPUT_BYTES
                if most.bytes < 0
                else _lower(asked.bytes, most.bytes)
            ),
            overflow=asked.overflow or _OVERFLOWS[most.overflow],
            rate=_lower(asked.rate, most.rate),
        )


def _lower(asked: int, most: int) -> int:
    """The lower of two limits, of which 0 is none."""
    return min(asked, most) if asked and most else asked or most


class QuotaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that a user or a tenant may have; 0 for no limit.

    Jobs that have not ended, starts within a minute, bytes of output kept.
    """

    running: int = 0
    starts_per_minute: int = 0
    output_bytes: Size = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what no quota can be."""
        for value, most in (
            (self.running, 2**31),
            (self.starts_per_minute, 2**31),
            (self.output_bytes, 2**62),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"a quota is 0 to {most}, not {value}")

    def message(self) -> pb.Quota:
        """As the supervisor and the users are told."""
        return pb.Quota(
            running=self.running,
            startsPerMinute=self.starts_per_minute,
            outputBytes=self.output_bytes,
        )


class QuotasConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Quotas of each user and each tenant, and of those named in `users` and `tenants`."""

    user: QuotaConfig = QuotaConfig()
    tenant: QuotaConfig = QuotaConfig()
    users: dict[str, QuotaConfig] = {}
    tenants: dict[str, QuotaConfig] = {}

    def of_user(self, name: str) -> QuotaConfig:
        """What a user may have, in all tenants together."""
        return self.users.get(name, self.user)

    def of_tenant(self, name: str) -> QuotaConfig:
        """What the users of a tenant may have together, for that tenant."""
        return self.tenants.get(name, self.tenant)


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The audit log: its directory, none for no log.

    `on_failure` says what becomes of requests while it cannot be written:
    "refuse" or "continue". A file has about `rotate_bytes`, the newest
    `keep_files` are kept (0 for all).
    """

    directory: str = ""
    on_failure: str = "refuse"
    rotate_bytes: Size = 64 * 1024 * 1024
    keep_files: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        if self.on_failure not in {"refuse", "continue"}:
            raise ValueError('on_failure must be "refuse" or "continue"')
        if self.rotate_bytes < 4096:
            raise ValueError("rotate_bytes must be at least 4096")
        if self.keep_files < 0:
            raise ValueError("keep_files must not be negative")


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log on stderr: "text", or "json" for one object a line; from which level on."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where metrics are served, HOST:PORT or [IPV6]:PORT; nowhere if that is empty."""

    listen: str = ""

    def address(self) -> tuple[str, int] | None:
        """The host and the port to listen on, None for none. Raises ConfigError."""
        return _host_and_port("metrics.listen", self.listen) if self.listen else None


class ConsoleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where web pages are served, HOST:PORT or [IPV6]:PORT; nowhere if that is empty.

    `hosts` are names by which browsers come to it beside those of the server's
    certificate, such as that of a tunnel.
    """

    listen: str = ""
    hosts: tuple[str, ...] = ()

    def address(self) -> tuple[str, int] | None:
        """The host and the port to listen on, None for none. Raises ConfigError."""
        return _host_and_port("console.listen", self.listen) if self.listen else None


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. Paths are relative to the file; `listen` is HOST:PORT or [IPV6]:PORT.

    `jobs` are the fields of SupervisorConfig but for state_dir. `output` limits
    what is kept of each job's output. `front_user` is the Unix user of the
    process that faces the network, where root starts the server. With `reflection` users'
    tools may ask what the contract is.
    """

    state_dir: str
    tls: TlsConfig
    policy: str
    listen: str = "127.0.0.1:50051"
    front_user: str | None = None
    connections: ConnectionsConfig = ConnectionsConfig()
    output: OutputLimits = OutputLimits()
    audit: AuditConfig = AuditConfig()
    quotas: QuotasConfig = QuotasConfig()
    metrics: MetricsConfig = MetricsConfig()
    console: ConsoleConfig = ConsoleConfig()
    log: LogConfig = LogConfig()
    reflection: bool = False
    jobs: dict[str, Any] = msgspec.field(default_factory=dict)

    def address(self) -> tuple[str, int]:
        """The host and the port to listen on. Raises ConfigError."""
        return _host_and_port("listen", self.listen)

    def runtime_directory(self) -> Path:
        """Where the front keeps its sockets: a directory of its own user alone."""
        return Path(self.state_dir) / "front"

    def supervisor(self) -> SupervisorConfig:
        """The supervisor's part. Raises ConfigError."""
        try:
            return msgspec.convert({**self.jobs, "state_dir": self.state_dir}, SupervisorConfig)
        except msgspec.ValidationError as error:
            raise ConfigError(f"jobs: {error}") from error


def _host_and_port(setting: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{setting}: {text!r} is not HOST:PORT", setting)
    return host.removeprefix("[").removesuffix("]"), int(port)
