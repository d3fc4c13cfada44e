"""What a job has used, may use and sees, as the contract tells it."""

import shlex
from collections.abc import Sequence

from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    JobSnapshot,
    Limits,
    StopMode,
    StopWay,
    legible,
)

# Characters; quotes may make five of one.
_MOST_COMMAND = 65_536


def usage_message(job: JobSnapshot, now_ns: int) -> pb.Usage:
    """A job's usage; `now_ns` is nanoseconds since 1970."""
    used = job.usage
    end = job.ended_ns if job.ended else now_ns
    return pb.Usage(
        userSeconds=used.user_seconds,
        systemSeconds=used.system_seconds,
        memoryBytes=used.memory,
        peakMemoryBytes=used.peak_memory,
        readBytes=used.read,
        writtenBytes=used.written,
        processes=used.processes,
        wallSeconds=max(0, end - job.created_ns) / 1e9,
    )


def limits_message(limits: Limits) -> pb.Limits:
    """A job's limits, but for its timeout."""
    return pb.Limits(
        memoryBytes=limits.memory,
        cpus=limits.cpus,
        processes=limits.processes,
        openFiles=limits.open_files,
        ioWeight=limits.io_weight,
    )


def command_text(argv: Sequence[str], *, cut: bool) -> str:
    """The command line for a POSIX shell; of a long one, or a cut one, the beginning and ..."""
    text = shlex.join(map(legible, argv))
    return f"{text[:_MOST_COMMAND]} ..." if cut or len(text) > _MOST_COMMAND else text


def stop_way(signal: int, mode: int) -> StopWay:
    """How a stop is asked to begin."""
    return StopWay(signal, StopMode(mode))


def isolation_name(asked: int) -> str:
    """The name of an isolation profile, the same on the pipe."""
    return pb.Isolation.Name(asked)
