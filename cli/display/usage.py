"""What a job has used, and what it may use: read from the server's reply, written as text."""

from dataclasses import dataclass
from datetime import timedelta

from jobworker.cli.quantities import size_text, span_text
from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job's whole tree has used; None is not known on the server's host.

    Times are in seconds, sizes in bytes. `memory_bytes` and `processes` are of
    now, so a job that has ended has none.
    """

    user_seconds: float | None
    system_seconds: float | None
    memory_bytes: int | None
    peak_memory_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    processes: int | None
    wall_seconds: float

    @property
    def cpu_seconds(self) -> float | None:
        """User and system time together."""
        if self.user_seconds is None or self.system_seconds is None:
            return None
        return self.user_seconds + self.system_seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a job's whole tree may use; None is no limit. Sizes are in bytes."""

    memory_bytes: int | None
    cpus: float | None
    processes: int | None
    open_files: int | None
    io_weight: int | None


def read_usage(usage: pb.Usage) -> Usage:
    """Return the usage that a reply tells."""
    return Usage(
        user_seconds=usage.userSeconds if usage.HasField("userSeconds") else None,
        system_seconds=usage.systemSeconds if usage.HasField("systemSeconds") else None,
        memory_bytes=usage.memoryBytes if usage.HasField("memoryBytes") else None,
        peak_memory_bytes=usage.peakMemoryBytes if usage.HasField("peakMemoryBytes") else None,
        read_bytes=usage.readBytes if usage.HasField("readBytes") else None,
        written_bytes=usage.writtenBytes if usage.HasField("writtenBytes") else None,
        processes=usage.processes if usage.HasField("processes") else None,
        wall_seconds=usage.wallSeconds,
    )


def read_limits(limits: pb.Limits) -> Limits:
    """Return the limits that a reply tells."""
    return Limits(
        memory_bytes=limits.memoryBytes or None,
        cpus=limits.cpus or None,
        processes=limits.processes or None,
        open_files=limits.openFiles or None,
        io_weight=limits.ioWeight or None,
    )


def limits_text(limits: Limits) -> str:
    """Return the limits in a line, "" if there are none."""
    told = {
        "memory": _size(limits.memory_bytes),
        "cpus": _number(limits.cpus),
        "processes": _number(limits.processes),
        "open files": _number(limits.open_files),
        "io weight": _number(limits.io_weight),
    }
    return ", ".join(f"{name} {text}" for name, text in told.items() if text)


def usage_text(usage: Usage) -> str:
    """Return what was used in a line, "" if nothing is known."""
    told = {
        "CPU": _span(usage.cpu_seconds),
        "memory": _size(usage.memory_bytes),
        "peak memory": _size(usage.peak_memory_bytes),
        "read": _size(usage.read_bytes),
        "written": _size(usage.written_bytes),
        "processes": _number(usage.processes),
    }
    return ", ".join(f"{name} {text}" for name, text in told.items() if text)


def usage_cells(usage: Usage) -> tuple[str, ...]:
    """Return the cells of a table of USAGE_HEADS, "-" for what is not known."""
    cells = (
        _span(usage.cpu_seconds),
        _size(usage.memory_bytes),
        _size(usage.peak_memory_bytes),
        _size(usage.read_bytes),
        _size(usage.written_bytes),
        _number(usage.processes),
        _span(usage.wall_seconds),
    )
    return tuple(cell or "-" for cell in cells)


USAGE_HEADS = ("CPU", "MEMORY", "PEAK", "READ", "WRITTEN", "PROCESSES", "TIME")


def _size(count: int | None) -> str:
    return "" if count is None else size_text(count)


def _span(seconds: float | None) -> str:
    return "" if seconds is None else span_text(timedelta(seconds=seconds))


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:g}"
