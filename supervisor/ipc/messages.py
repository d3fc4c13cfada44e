"""From jobs and errors to messages on the pipe."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import errors
from jobworker.supervisor.exact_text import legible, to_bytes
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.host.limits import FIELDS, Limits
from jobworker.supervisor.host.users import SERVICE_USER
from jobworker.supervisor.job import (
    ONCE,
    Asker,
    Attempt,
    HealthCheck,
    Job,
    Overflow,
    Request,
    Restart,
    State,
    StopWay,
    Terminal,
    Upload,
    exit_code,
)

CODES: dict[type[errors.SupervisorError], ipc.Code] = {
    errors.InvalidRequest: ipc.INVALID,
    errors.NoSuchJob: ipc.NO_SUCH_JOB,
    errors.KeyTaken: ipc.KEY_TAKEN,
    errors.NameTaken: ipc.NAME_TAKEN,
    errors.NoSuchSchedule: ipc.NO_SUCH_SCHEDULE,
    errors.CannotExecute: ipc.CANNOT_EXECUTE,
    errors.CannotPlace: ipc.CANNOT_PLACE,
    errors.AlreadyEnded: ipc.ALREADY_ENDED,
    errors.NotRunning: ipc.NOT_RUNNING,
    errors.NothingListens: ipc.NOTHING_LISTENS,
    errors.StillRunning: ipc.STILL_RUNNING,
    errors.Exhausted: ipc.EXHAUSTED,
    errors.QuotaReached: ipc.QUOTA_REACHED,
    errors.ShuttingDown: ipc.SHUTTING_DOWN,
    errors.Drained: ipc.DRAINED,
    errors.NoInput: ipc.NO_INPUT,
    errors.SupervisorBug: ipc.INTERNAL,
}
_ERRORS = {code: error for error, code in CODES.items()}


# Bytes of a command line in messages: a page of 1000 jobs must fit into a frame, and an
# answer about one into what a gRPC client takes (4 MiB).
MAX_ARGV_BYTES = 1024 * 1024
MAX_LISTED_BYTES = 2048


# For those who have no other use for the pipe's own messages.
JobMessage = ipc.Job


# Asked for with every job.
_state_name = cache(pb.JobState.Name)
_reason_name = cache(pb.EndReason.Name)
_overflow_name = cache(pb.OutputOverflow.Name)
_isolation_name = cache(pb.Isolation.Name)
_stop_mode_name = cache(pb.StopMode.Name)
_input_name = cache(pb.InputMode.Name)
_restart_name = cache(pb.RestartWhen.Name)


def job_message(
    job: Job, *, gone: bool, ready: bool = False, lived_ns: int = 0, most: int = MAX_ARGV_BYTES
) -> ipc.Job:
    """A job as clients see it, with at most so many bytes of its command line."""
    argv, cut = _cut(job.request.argv, most)
    # Another attempt follows, and its output.
    restarting = job.state is State.RESTARTING
    state = State.STOPPING if restarting else job.state
    listed = most == MAX_LISTED_BYTES
    return ipc.Job(
        id=job.id,
        owner=job.request.owner,
        tenant=job.request.tenant,
        argv=argv,
        argv_cut=cut,
        cwd=to_bytes(job.request.cwd),
        state=_state_name(state),
        reason=_reason_name(job.reason),
        pid=job.pid,
        exit_status=job.exit_status,
        signal=job.signal,
        created_ns=job.created_ns,
        ended_ns=job.ended_ns,
        lived_ns=lived_ns,
        output_begin=job.output_begin,
        output_end=job.output_end,
        output_complete=job.output_complete and not restarting,
        output_drained=job.output_drained and not restarting,
        detail=job.detail,
        gone=gone,
        usage=usage_message(job.usage),
        user=job.request.account.name if job.request.account else SERVICE_USER,
        user_shared=job.request.account is None,
        request=request_message(job.request),
        inside=job.request.inside,
        attempts=[] if listed else map(_attempt_message, job.attempts),
        attempt=job.attempt,
        ready=ready and job.state.going_on,
    )


def _attempt_message(attempt: Attempt) -> pb.Attempt:
    message = pb.Attempt(
        number=attempt.number,
        endReason=_reason_name(attempt.reason),
        exitCode=exit_code(attempt.reason, attempt.exit_status, attempt.signal),
        signal=attempt.signal,
        detail=attempt.detail,
        outputBegin=attempt.output_begin,
        outputEnd=attempt.output_end,
    )
    message.startedAt.FromNanoseconds(attempt.began_ns)
    message.endedAt.FromNanoseconds(attempt.ended_ns)
    return message


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


def request_message(request: Request) -> pb.StartRequest:
    """What holds of what was asked for; the inverse of what start_request.check_start does to it.

    Without texts, tenant and key: they are told in other fields, or to nobody.
    """
    told = pb.StartRequest(
        graceSeconds=request.grace,
        timeoutSeconds=request.limits.timeout,
        outputLimit=pb.OutputLimit(
            bytes=request.output_limit.bytes,
            overflow=_overflow_name(OVERFLOWS[request.output_limit.overflow]),
            rate=request.output_limit.rate,
        ),
        limits=limits_message(request.limits),
        isolation=_isolation_name(request.profile),
        noNetwork=not request.network,
        stopSignal=request.stop.signal,
        stopMode=_stop_mode_name(request.stop.mode),
        loginEnvironment=request.login,
        input=_input_name(request.input),
        terminal=terminal_message(request.terminal) if request.terminal.rows else None,
        onDisconnect=pb.OnDisconnect.Name(request.on_disconnect),
        queue=request.waiting.queue,
        priority=request.waiting.priority,
        queueTimeoutSeconds=request.waiting.timeout,
        after=request.waiting.after,
        afterOutcome=pb.AfterOutcome.Name(request.waiting.outcome),
        name=request.name,
        labels=request.labels,
        restart=restart_message(request.restart) if request.restart != ONCE else None,
        health=health_message(request.health) if request.health.port else None,
        uploads=map(_upload_message, request.uploads),
        startInSeconds=request.waiting.delay,
    )
    if request.waiting.at_us:
        told.startAt.FromMicroseconds(request.waiting.at_us)
    return told


def start_message(request: Request) -> pb.StartRequest:
    """All that holds of what was asked for, but for its key: it may hold secrets."""
    told = request_message(request)
    told.tenant = request.tenant
    told.rawArguments.extend(map(to_bytes, request.argv))
    told.rawWorkingDirectory = to_bytes(request.cwd)
    told.rawEnvironment.extend(
        pb.RawVariable(name=to_bytes(name), value=to_bytes(value))
        for name, value in request.environment.items()
    )
    return told


def asker_message(asker: Asker) -> ipc.Asker:
    """By which certificate a job was asked for, as it is told."""
    return ipc.Asker(tenants=asker.tenants, serial=asker.serial, not_after_us=asker.not_after_us)


def _upload_message(upload: Upload) -> pb.Upload:
    return pb.Upload(
        name=to_bytes(upload.name), mode=upload.mode, size=upload.size, sha256=upload.sha256
    )


def restart_message(restart: Restart) -> pb.RestartPolicy:
    """When a job is started again, as it is told."""
    return pb.RestartPolicy(
        when=_restart_name(restart.when),
        maxRestarts=restart.most,
        delaySeconds=restart.delay,
        maxDelaySeconds=restart.longest,
        healthySeconds=restart.healthy,
        finalExitCodes=restart.final,
        persist=restart.persist,
    )


def health_message(check: HealthCheck) -> pb.HealthCheck:
    """How is told whether a job is ready, as it is told."""
    return pb.HealthCheck(
        port=check.port,
        intervalSeconds=check.interval,
        startSeconds=check.start,
        retries=check.retries,
    )


def terminal_message(terminal: Terminal) -> pb.Terminal:
    """A terminal as it is told."""
    return pb.Terminal(rows=terminal.rows, columns=terminal.columns, kind=terminal.kind)


# The journal's numbers began before the contract had one for "as the server likes".
OVERFLOWS = {
    Overflow.ROTATE: pb.OUTPUT_OVERFLOW_ROTATE,
    Overflow.STOP_RECORDING: pb.OUTPUT_OVERFLOW_STOP_RECORDING,
    Overflow.STOP_JOB: pb.OUTPUT_OVERFLOW_STOP_JOB,
}


def stop_message(way: StopWay) -> ipc.StopWay:
    """How a stop begins, as it is told."""
    return ipc.StopWay(signal=way.signal, mode=pb.StopMode.Name(way.mode))


# Limit, as host.limits has it -> its field in the contract's Limits.
_LIMITS = {
    name: field.removeprefix("limits.")
    for name, field in FIELDS.items()
    if field.startswith("limits.")
}


def limits_message(limits: Limits) -> pb.Limits:
    """Limits as they are told; the timeout has a place of its own."""
    values: dict[str, Any] = {field: getattr(limits, name) for name, field in _LIMITS.items()}
    return pb.Limits(**values)


def limits_of(message: pb.Limits, timeout: float = 0.0) -> Limits:
    """The limits that are told; `limits_message`'s inverse. Raises ValueError."""
    values: dict[str, Any] = {name: getattr(message, field) for name, field in _LIMITS.items()}
    return Limits(**values, timeout=timeout)


# What is used, as host.accounting has it -> its field in the contract's Usage.
_USAGE = {
    "user_seconds": "userSeconds",
    "system_seconds": "systemSeconds",
    "memory": "memoryBytes",
    "peak_memory": "peakMemoryBytes",
    "read": "readBytes",
    "written": "writtenBytes",
    "processes": "processes",
}
_USAGE_OF = {field: name for name, field in _USAGE.items()}


def usage_message(usage: Usage) -> pb.Usage:
    """Usage as it is told, but for the wall's time."""
    values: dict[str, Any] = {field: getattr(usage, name) for name, field in _USAGE.items()}
    return pb.Usage(**values)


def usage_of(message: pb.Usage) -> Usage:
    """The usage that is told; `usage_message`'s inverse."""
    known = ((field.name, value) for field, value in message.ListFields())
    return Usage(**{_USAGE_OF[name]: value for name, value in known if name in _USAGE_OF})


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
