"""The supervisor's settings, as the administrator gives them and as the keeper passes them on."""

import msgspec

from jobworker.supervisor.host.isolation import IsolationConfig
from jobworker.supervisor.host.limits import LimitsConfig
from jobworker.supervisor.host.sizes import Size
from jobworker.supervisor.host.user_mapping import UsersConfig
from jobworker.supervisor.job import QUEUE_NAME

BASE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long jobs that have ended are kept, with their output; 0 for no bound.

    The first to end is the first to go. `seconds` since the end, `jobs` in
    number, `output_bytes` of all of them together.
    """

    seconds: float = 30 * 86400.0
    jobs: int = 100_000
    output_bytes: Size = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        if min(self.seconds, self.jobs, self.output_bytes) < 0:
            raise ValueError("retention must not be negative")


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A queue: how many of its jobs may run at once; 0 for as many as quotas allow."""

    parallel: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        if not 0 <= self.parallel <= 2**31:
            raise ValueError(f"parallel is 0 to {2**31}, not {self.parallel}")


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes processes of jobs: `kind` "local" is this host, "slurm" a cluster of Slurm's.

    The rest is for that: `partition` and `account` as in sbatch(1), empty for Slurm's defaults;
    `shared_dir` is a directory that all nodes have at the same path, of this service alone;
    `node` is where they have the program jobworker-node, empty for beside this one's.
    """

    kind: str = "local"
    partition: str = ""
    account: str = ""
    shared_dir: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        if self.kind not in {"local", "slurm"}:
            raise ValueError('kind must be "local" or "slurm"')
        if self.kind == "local" and (self.partition or self.account or self.shared_dir):
            raise ValueError('partition, account and shared_dir are for kind: "slurm"')
        if self.kind == "slurm" and not self.shared_dir.startswith("/"):
            raise ValueError(
                "slurm needs shared_dir: the absolute path of a directory that the nodes share"
            )
        if self.node and not self.node.startswith("/"):
            raise ValueError("node must be an absolute path")


class SupervisorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How jobs are run. Sizes are bytes, times seconds, paths absolute.

    `stop_seconds` is how long the end of the service may take beyond the longest
    grace period, such as for a disk that has no room for the exit statuses.
    `attend_seconds` is how long who attends to a job that is not to go on without them
    (`--on-disconnect`) has to come back. `min_free` is how much of the state directory's
    file system output leaves free:
    with less there is a gap in its place; -1 for 64 MiB, or a tenth of a small one. A file that
    is put into a job's directory leaves as much, and has `file_bytes` at most, 0 for any.
    `environment` is all that a job inherits, beside what its Start adds.
    `cgroup` is "auto" (used where cgroup v2 can be) or "off". Without `users`
    all jobs run as the service's own user. `no_new_privileges` keeps jobs from
    gaining any by executing a program, such as sudo (prctl(2)). `readers` is the
    ID of the group that may read output, -1 for the service's own.
    `queues` are those in which jobs may wait for their turn, by name, beside the one
    that is always there. `spare_launchers` is of releases that forked ahead: it is
    taken, and ignored.
    """

    state_dir: str
    environment: dict[str, str] = msgspec.field(default_factory=lambda: dict(BASE_ENVIRONMENT))
    working_directory: str = "/"
    umask: int = 0o022
    grace_seconds: float = 10.0
    start_seconds: float = 10.0
    stop_seconds: float = 5.0
    attend_seconds: float = 30.0
    min_free: Size = -1
    file_bytes: Size = 0
    segment_bytes: Size = 64 * 1024 * 1024
    pipe_bytes: Size = 1024 * 1024
    spare_launchers: int = 8
    cgroup: str = "auto"
    retention: RetentionConfig = RetentionConfig()
    users: UsersConfig | None = None
    limits: LimitsConfig = LimitsConfig()
    isolation: IsolationConfig = IsolationConfig()
    no_new_privileges: bool = True
    readers: int = -1
    queues: dict[str, QueueConfig] = {}
    engine: EngineConfig = EngineConfig()

    def __post_init__(self) -> None:
        """Raise ValueError for what no supervisor could work with."""
        if not self.state_dir.startswith("/"):
            raise ValueError("state_dir must be an absolute path")
        if not self.working_directory.startswith("/"):
            raise ValueError("working_directory must be an absolute path")
        if self.cgroup not in {"auto", "off"}:
            raise ValueError('cgroup must be "auto" or "off"')
        for name in ("grace_seconds", "start_seconds", "stop_seconds", "attend_seconds"):
            if not 0 < getattr(self, name) <= 86400:
                raise ValueError(f"{name} must be between 0 and 86400 seconds")
        for name in self.queues:
            if not QUEUE_NAME.fullmatch(name):
                raise ValueError(
                    f"queues: {name!r} is no name: up to 64 characters of A-Z a-z 0-9 . _ -, "
                    "a letter first"
                )
        for name, least in (("segment_bytes", 65536), ("pipe_bytes", 4096), ("file_bytes", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")
