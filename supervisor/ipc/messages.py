"""From jobs and errors to messages on the pipe."""

from collections.abc import Sequence

from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import errors
from jobworker.supervisor.exact_text import legible, to_bytes
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.host.limits import Limits
from jobworker.supervisor.host.users import SERVICE_USER
from jobworker.supervisor.job import Job, StopWay

CODES: dict[type[errors.SupervisorError], ipc.Code] = {
    errors.InvalidRequest: ipc.INVALID,
    errors.NoSuchJob: ipc.NO_SUCH_JOB,
    errors.CannotExecute: ipc.CANNOT_EXECUTE,
    errors.CannotPlace: ipc.CANNOT_PLACE,
    errors.AlreadyEnded: ipc.ALREADY_ENDED,
    errors.StillRunning: ipc.STILL_RUNNING,
    errors.Exhausted: ipc.EXHAUSTED,
    errors.QuotaReached: ipc.QUOTA_REACHED,
    errors.ShuttingDown: ipc.SHUTTING_DOWN,
    errors.SupervisorBug: ipc.INTERNAL,
}
_ERRORS = {code: error for error, code in CODES.items()}


# Bytes of a command line in messages: a page of 1000 jobs must fit into a frame, and an
# answer about one into what a gRPC client takes (4 MiB).
MAX_ARGV_BYTES = 1024 * 1024
MAX_LISTED_BYTES = 2048


def job_message(job: Job, *, gone: bool, most: int = MAX_ARGV_BYTES) -> ipc.Job:
    """A job as clients see it, with at most so many bytes of its command line."""
    argv, cut = _cut(job.request.argv, most)
    return ipc.Job(
        id=job.id,
        owner=job.request.owner,
        tenant=job.request.tenant,
        argv=argv,
        argv_cut=cut,
        cwd=to_bytes(job.request.cwd),
        state=ipc.State.Name(job.state),
        reason=ipc.Reason.Name(job.reason),
        pid=job.pid,
        exit_status=job.exit_status,
        signal=job.signal,
        created_ns=job.created_ns,
        ended_ns=job.ended_ns,
        output_begin=job.output_begin,
        output_end=job.output_end,
        output_complete=job.output_complete,
        output_drained=job.output_drained,
        detail=job.detail,
        gone=gone,
        usage=_usage_message(job.usage),
        limits=limits_message(job.request.limits),
        user=job.request.account.name if job.request.account else SERVICE_USER,
        user_shared=job.request.account is None,
        isolation=ipc.Isolation.Name(job.request.profile),
        no_network=not job.request.network,
        stop=stop_message(job.request.stop),
    )


def _cut(argv: Sequence[str], most: int) -> tuple[list[bytes], bool]:
    """As much of a command line as goes into so many bytes, and whether that is not all."""
    kept: list[bytes] = []
    for argument in map(to_bytes, argv):
        # What a message needs beside the bytes of an argument, at most.
        most -= 6
        if len(argument) > most:
            return [*kept, argument[: max(0, most)]], True
        kept.append(argument)
        most -= len(argument)
    return kept, False


def stop_message(way: StopWay) -> ipc.StopWay:
    """How a stop begins, as it is told."""
    return ipc.StopWay(signal=way.signal, mode=ipc.StopMode.Name(way.mode))


def limits_message(limits: Limits) -> ipc.Limits:
    """Limits as they are told; the timeout has a place of its own."""
    return ipc.Limits(
        memory_bytes=limits.memory,
        cpus=limits.cpus,
        processes=limits.processes,
        open_files=limits.open_files,
        io_weight=limits.io_weight,
    )


def _usage_message(usage: Usage) -> ipc.Usage:
    return ipc.Usage(
        user_seconds=usage.user_seconds,
        system_seconds=usage.system_seconds,
        memory_bytes=usage.memory,
        peak_memory_bytes=usage.peak_memory,
        read_bytes=usage.read,
        written_bytes=usage.written,
        processes=usage.processes,
    )


def words_of(error: errors.SupervisorError) -> str:
    """What an error says, in valid Unicode."""
    return legible(str(error))


def error_reply(seq: int, error: errors.SupervisorError) -> ipc.Reply:
    """The reply to a request that failed."""
    reply = ipc.Reply(seq=seq, code=CODES[type(error)], message=words_of(error))
    if isinstance(error, errors.CannotExecute):
        reply.errno, reply.program = error.errno, error.program
    if isinstance(error, errors.InvalidRequest):
        reply.field = error.field
    if isinstance(error, errors.QuotaReached):
        reply.quota = error.quota
    return reply


def error_of(reply: ipc.Reply) -> errors.SupervisorError:
    """The error that a reply stands for; `error_reply`'s inverse."""
    if reply.code == ipc.CANNOT_EXECUTE:
        return errors.CannotExecute(reply.message, reply.errno, program=reply.program)
    if reply.code == ipc.INVALID:
        return errors.InvalidRequest(reply.message, reply.field)
    if reply.code == ipc.QUOTA_REACHED:
        return errors.QuotaReached(reply.message, reply.quota)
    return _ERRORS.get(reply.code, errors.SupervisorBug)(reply.message)
