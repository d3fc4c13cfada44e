"""What a job may use of the host: what it asks for, what its tenant has by default, and at most."""

import math
from collections.abc import Collection

import msgspec

from jobworker.supervisor.errors import CannotPlace, InvalidRequest
from jobworker.supervisor.host.sizes import Size

# A launcher needs about a third of this to get as far as the job's program.
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MAX_BYTES = 2**62
MIN_CPUS = 0.01
MAX_CPUS = 4096.0
MAX_PROCESSES = 4 * 1024 * 1024
# Below, a program's own libraries could not be opened beside its three streams.
MIN_OPEN_FILES = 8
MAX_OPEN_FILES = 1024 * 1024
# Documentation/admin-guide/cgroup-v2.rst, io.weight; what is not set counts 100.
MAX_IO_WEIGHT = 10_000
MAX_TIMEOUT_SECONDS = 10 * 365 * 86400.0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of one job's whole tree; 0 for no limit.

    `memory` is in bytes, `cpus` in processors' worth of time (0.5 is half of
    one), `processes` counts threads, too, `open_files` is for each process,
    `io_weight` (1 to 10000) is its share of a contended disk, and `timeout` is
    how many seconds it may run.
    """

    memory: Size = 0
    cpus: float = 0.0
    processes: int = 0
    open_files: int = 0
    io_weight: int = 0
    timeout: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a limit that cannot be meant."""
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value and not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"{name} must be 0 or between {least:g} and {most:g}")


_RANGES = (
    ("memory", MIN_MEMORY_BYTES, MAX_BYTES),
    ("cpus", MIN_CPUS, MAX_CPUS),
    ("processes", 1, MAX_PROCESSES),
    ("open_files", MIN_OPEN_FILES, MAX_OPEN_FILES),
    ("io_weight", 1, MAX_IO_WEIGHT),
    ("timeout", 0, MAX_TIMEOUT_SECONDS),
)
NO_LIMITS = Limits()
# Limit -> the field of the contract's StartRequest that asks for it.
FIELDS = {
    "memory": "limits.memoryBytes",
    "cpus": "limits.cpus",
    "processes": "limits.processes",
    "open_files": "limits.openFiles",
    "io_weight": "limits.ioWeight",
    "timeout": "timeoutSeconds",
}


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for jobs that ask for nothing (`default`), and what may be asked for (`most`)."""

    default: Limits = NO_LIMITS
    most: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        """Raise ValueError for a default that nobody may have."""
        for name, default, most in _each(self.default, self.most):
            if most and default > most:
                raise ValueError(
                    f"the default for {name} ({default:g}) exceeds the most ({most:g})"
                )


class LimitsConfig(Bounds, frozen=True, forbid_unknown_fields=True):
    """Bounds for all jobs, and in their place those for the jobs of some tenants."""

    tenants: dict[str, Bounds] = {}

    def bounds(self, tenant: str) -> Bounds:
        """Those for the jobs of a tenant."""
        return self.tenants.get(tenant, self)

    def resolve(self, asked: Limits, tenant: str) -> Limits:
        """The limits of a job. Raises InvalidRequest when more is asked for than may be had."""
        bounds = self.bounds(tenant)
        for name, wanted, most in _each(asked, bounds.most):
            if most and wanted > most:
                whose = f"a job of tenant {tenant}" if tenant in self.tenants else "a job"
                raise InvalidRequest(
                    f"{name} of {wanted:g} is more than {whose} may have: ask for {most:g} or less",
                    FIELDS[name],
                )
        open_ones = {
            name: default or most
            for name, default, most in _each(bounds.default, bounds.most)
            if not getattr(asked, name)
        }
        return msgspec.structs.replace(asked, **open_ones)


def _each(one: Limits, other: Limits) -> list[tuple[str, float, float]]:
    """Each limit's name, and its value in the one and the other."""
    return [(name, getattr(one, name), getattr(other, name)) for name in Limits.__struct_fields__]


# Limit -> the cgroup v2 controller that keeps it for a whole tree.
CONTROLLER = {"memory": "memory", "cpus": "cpu", "processes": "pids", "io_weight": "io"}


def check_kept(
    limits: Limits, controllers: Collection[str], shortfall: str, own_user: bool
) -> None:
    """Raise CannotPlace for a limit that nothing on this host would keep.

    `controllers` are those of the jobs' cgroups, `shortfall` says why others
    are missing, `own_user` that the job runs as an ordinary user who is not the
    service's: then RLIMIT_NPROC (setrlimit(2)), which counts all that user's
    processes, keeps a limit of processes, if too strictly.
    """
    for name, controller in CONTROLLER.items():
        if not getattr(limits, name) or controller in controllers:
            continue
        if name == "processes" and own_user:
            continue
        raise CannotPlace(
            f"this host cannot keep a limit of {name}: {shortfall or 'its cgroups lack'}"
            f" the {controller} controller; start the job without it, or see docs/security.md"
        )
