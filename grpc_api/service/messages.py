"""A job, what it has used, may use and sees, as the contract tells it."""

import shlex
from collections.abc import Sequence
from functools import cache

from jobworker.grpc_api.service.output import timestamp
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    JobSnapshot,
    State,
    StopMode,
    StopWay,
    is_utf8,
    legible,
    to_bytes,
    usage_message,
)

# Asked for with every job.
_state_name = cache(pb.JobState.Name)
_reason_name = cache(pb.EndReason.Name)
# Characters; quotes may make five of one.
_MOST_COMMAND = 65_536


def usage_of_job(job: JobSnapshot) -> pb.Usage:
    """A job's usage."""
    message = usage_message(job.usage)
    message.wallSeconds = job.lived_ns / 1e9
    return message


def command_text(argv: Sequence[str], *, cut: bool) -> str:
    """The command line for a POSIX shell; of a long one, or a cut one, the beginning and ..."""
    text = shlex.join(map(legible, argv))
    return f"{text[:_MOST_COMMAND]} ..." if cut or len(text) > _MOST_COMMAND else text


def stop_way(signal: int, mode: int) -> StopWay:
    """How a stop is asked to begin."""
    return StopWay(signal, StopMode(mode))


def status_message(job: JobSnapshot) -> pb.QueryStatusResponse:
    """A job as the contract tells it."""
    message = pb.QueryStatusResponse(
        pid=job.pid,
        exitCode=job.exit_code,
        command=command_text(job.argv, cut=job.argv_cut),
        JobStatus=pb.EXITED if job.ended else pb.RUNNING,
        jobID=job.id,
        commandName=legible(job.argv[0]),
        Arguments=map(legible, job.argv[1:]),
        rawArguments=[] if all(map(is_utf8, job.argv)) else map(to_bytes, job.argv),
        argumentsCut=job.argv_cut,
        state=_state_name(job.state),
        endReason=_reason_name(job.reason),
        signal=job.signal,
        owner=job.owner,
        tenant=job.tenant,
        createdAt=timestamp(job.created_ns),
        outputBytes=job.output_end,
        outputBegin=job.output_begin,
        outputComplete=job.output_complete,
        detail=job.detail,
        workingDirectory=legible(job.cwd),
        rawWorkingDirectory=b"" if is_utf8(job.cwd) else to_bytes(job.cwd),
        usage=usage_of_job(job),
        limits=job.request.limits,
        user=job.user,
        userShared=job.user_shared,
        isolation=job.request.isolation,
        noNetwork=job.request.noNetwork,
        stopSignal=job.request.stopSignal,
        stopMode=job.request.stopMode,
        request=job.request,
        inside=job.inside,
        attempts=job.attempts,
        attempt=job.attempt,
        ready=job.ready,
    )
    if job.state is State.ENDED:
        message.endedAt.CopyFrom(timestamp(job.ended_ns))
    return message
