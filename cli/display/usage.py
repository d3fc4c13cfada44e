"""What a job has used, and what it may use: the server's messages, written as text."""

from datetime import timedelta
from typing import Any

from jobworker.cli.quantities import size_text, span_text
from jobworker.client.messages import told
from jobworker.proto import workerservice_pb2 as pb


def limits_json(limits: pb.Limits) -> dict[str, object]:
    """Return the limits for JSON; null is no limit."""
    return {name: value or None for name, value in told(limits).items()}


def limits_text(limits: pb.Limits) -> str:
    """Return the limits in a line, "" if there are none."""
    texts = {
        "memory": _size(limits.memoryBytes or None),
        "cpus": _number(limits.cpus or None),
        "processes": _number(limits.processes or None),
        "open files": _number(limits.openFiles or None),
        "io weight": _number(limits.ioWeight or None),
    }
    return ", ".join(f"{name} {text}" for name, text in texts.items() if text)


def _known(usage: pb.Usage, field: str) -> Any:
    """What was used, or None where the server's host does not tell."""
    return getattr(usage, field) if usage.HasField(field) else None


def _cpu_seconds(usage: pb.Usage) -> float | None:
    """User and system time together."""
    user, system = _known(usage, "userSeconds"), _known(usage, "systemSeconds")
    return None if user is None or system is None else user + system


def usage_text(usage: pb.Usage) -> str:
    """Return what was used in a line, "" if nothing is known."""
    texts = {
        "CPU": _span(_cpu_seconds(usage)),
        "memory": _size(_known(usage, "memoryBytes")),
        "peak memory": _size(_known(usage, "peakMemoryBytes")),
        "read": _size(_known(usage, "readBytes")),
        "written": _size(_known(usage, "writtenBytes")),
        "processes": _number(_known(usage, "processes")),
    }
    return ", ".join(f"{name} {text}" for name, text in texts.items() if text)


def usage_cells(usage: pb.Usage) -> tuple[str, ...]:
    """Return the cells of a table of USAGE_HEADS, "-" for what is not known."""
    cells = (
        _span(_cpu_seconds(usage)),
        _size(_known(usage, "memoryBytes")),
        _size(_known(usage, "peakMemoryBytes")),
        _size(_known(usage, "readBytes")),
        _size(_known(usage, "writtenBytes")),
        _number(_known(usage, "processes")),
        _span(usage.wallSeconds),
    )
    return tuple(cell or "-" for cell in cells)


USAGE_HEADS = ("CPU", "MEMORY", "PEAK", "READ", "WRITTEN", "PROCESSES", "TIME")


def _size(count: int | None) -> str:
    return "" if count is None else size_text(count)


def _span(seconds: float | None) -> str:
    return "" if seconds is None else span_text(timedelta(seconds=seconds))


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:g}"
