"""What the server's messages say, as plain values, and plain values as messages."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, TypedDict

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True)
class Attempt:
    """A time that a job was started that is started again; the first has the number 1.

    Its output is from the byte `output_begin` to before `output_end`. `exit_code` is
    None where the job was lost.
    """

    number: int
    started_at: datetime
    ended_at: datetime
    reason: str
    exit_code: int | None
    signal: int | None
    output_begin: int
    output_end: int
    detail: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's status. The field names are the keys of the JSON form.

    `state` is pending, starting, running, paused, stopping or ended; `reason`, once ended, why:
    exited, signaled, stopped, lost, timed_out, output_limit, out_of_memory or unhealthy; of
    one whose turn never came, refused, queue_timeout, cannot_start or dependency_failed.
    `exit_code`, once ended, is as a shell reports it, 128+N for signal N; a lost job has none.
    The end of the `command` is left out where `command_cut`. Of the `output_bytes`
    written, those before `output_begin` are not kept. `user` is the Unix user it
    runs as; `user_shared`, that all jobs do. A stop begins with `stop_signal` to the
    whole `tree` or the `main` process (`stop_mode`). It runs within the job `inside`, if
    one is named there. A list has no `usage`.
    """

    id: str
    state: str
    reason: str | None
    exit_code: int | None
    signal: int | None
    pid: int
    command: tuple[str, ...]
    command_cut: bool
    working_directory: str
    owner: str
    tenant: str
    created_at: datetime | None
    ended_at: datetime | None
    output_begin: int
    output_bytes: int
    output_complete: bool
    user: str
    user_shared: bool
    isolation: str
    network: bool
    stop_signal: int
    stop_mode: str
    limits: pb.Limits
    usage: pb.Usage | None
    request: pb.StartRequest
    inside: str | None
    attempt: int
    attempts: tuple[Attempt, ...]
    ready: bool
    detail: str

    @property
    def ended(self) -> bool:
        """Whether the main process has ended."""
        return self.state == "ended"


def read_job(status: pb.QueryStatusResponse) -> JobStatus:
    """Return the job that a reply describes."""
    ended = status.state == pb.JOB_STATE_ENDED
    lost = status.endReason == pb.END_REASON_LOST
    return JobStatus(
        id=status.jobID,
        state=word(pb.JobState.DESCRIPTOR, status.state),
        reason=word(pb.EndReason.DESCRIPTOR, status.endReason) if ended else None,
        exit_code=status.exitCode if ended and not lost else None,
        signal=status.signal or None,
        pid=status.pid,
        command=_command(status),
        command_cut=status.argumentsCut,
        working_directory=os.fsdecode(status.rawWorkingDirectory or status.workingDirectory),
        owner=status.owner,
        tenant=status.tenant,
        created_at=_time(status.createdAt) if status.HasField("createdAt") else None,
        ended_at=_time(status.endedAt) if status.HasField("endedAt") else None,
        output_begin=status.outputBegin,
        output_bytes=status.outputBytes,
        output_complete=status.outputComplete,
        user=status.user,
        user_shared=status.userShared,
        isolation=word(pb.Isolation.DESCRIPTOR, status.isolation),
        network=not status.noNetwork,
        stop_signal=status.stopSignal,
        stop_mode=word(pb.StopMode.DESCRIPTOR, status.stopMode),
        limits=status.limits,
        usage=status.usage if status.HasField("usage") else None,
        request=status.request,
        inside=status.inside or None,
        attempt=status.attempt or 1,
        attempts=tuple(map(_attempt, status.attempts)),
        ready=status.ready,
        detail=status.detail,
    )


def _command(status: pb.QueryStatusResponse) -> tuple[str, ...]:
    if status.rawArguments:
        return tuple(map(os.fsdecode, status.rawArguments))
    return (status.commandName, *status.Arguments)


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _attempt(told: pb.Attempt) -> Attempt:
    lost = told.endReason == pb.END_REASON_LOST
    return Attempt(
        number=told.number,
        started_at=_time(told.startedAt),
        ended_at=_time(told.endedAt),
        reason=word(pb.EndReason.DESCRIPTOR, told.endReason),
        exit_code=None if lost else told.exitCode,
        signal=told.signal or None,
        output_begin=told.outputBegin,
        output_end=told.outputEnd,
        detail=told.detail,
    )


class StartOptions(TypedDict, total=False):
    """What a start may be told, besides the command. What is left out is up to the server.

    `env` are variables, by their names, and `cwd` the directory, relative to the home of
    the job's user; `tenant` is one of the certificate's, the first by default; `timeout`
    and `grace` are seconds; two starts with one `key` start one job; `name` is what it is
    found by, and no other of one's jobs that have not ended has, by its `labels` it is
    found among others; it comes `after` the jobs of these IDs or names, where they end with
    0; `restart` says when it is started again. `request` has whatever else the contract
    knows, such as `limits`, and gives way to the others.
    """

    env: Mapping[str, str]
    cwd: str
    tenant: str
    timeout: float
    grace: float
    name: str
    labels: Mapping[str, str]
    after: Sequence[str]
    restart: pb.RestartPolicy
    key: str
    request: pb.StartRequest


class ListOptions(TypedDict, total=False):
    """Which jobs: all holds that is given.

    `running` means not ended; `states` any of pending, starting, running, paused, stopping
    and ended; `failed` ended, but not by exit with 0; `since` and `until` when it began;
    a `name` may have * and ?; `labels` all of them; `command` is a part of that.
    """

    running: bool
    states: Sequence[str]
    failed: bool
    since: datetime
    until: datetime
    name: str
    labels: Mapping[str, str]
    command: str
    owner: str
    tenant: str


def list_message(options: ListOptions) -> pb.ListRequest:
    """Return the request for a list. Raises ValueError for a state that there is not."""
    request = pb.ListRequest(
        running=options.get("running", False),
        states=[_state(word) for word in options.get("states", ())],
        failed=options.get("failed", False),
        name=options.get("name", ""),
        labels=options.get("labels", {}),
        command=options.get("command", ""),
        owner=options.get("owner", ""),
        tenant=options.get("tenant", ""),
    )
    if "since" in options:
        request.since.FromDatetime(options["since"])
    if "until" in options:
        request.until.FromDatetime(options["until"])
    return request


def fits(job: pb.QueryStatusResponse, request: pb.ListRequest) -> bool:
    """Whether a job is what a list was asked for, but for its command.

    A server that is older than its client does not know what it is asked, and lists all.
    """
    failed = job.state == pb.JOB_STATE_ENDED and (
        job.endReason != pb.END_REASON_EXITED or job.exitCode != 0
    )
    created, labels = job.createdAt.ToNanoseconds(), job.request.labels
    return (
        (not request.states or job.state in request.states)
        and (not request.failed or failed)
        and (not request.reasons or job.endReason in request.reasons)
        and (not request.HasField("since") or created >= request.since.ToNanoseconds())
        and (not request.HasField("until") or created < request.until.ToNanoseconds())
        and (not request.name or _is_called(job.request.name, request.name))
        and all(labels.get(key) == value for key, value in request.labels.items())
        and all(key in labels for key in request.labelKeys)
    )


def _is_called(name: str, pattern: str) -> bool:
    return bool(name) and fnmatchcase(name, pattern.replace("[", "[[]"))


def _state(word: str) -> str:
    name = f"JOB_STATE_{word.upper()}"
    if name not in pb.JobState.DESCRIPTOR.values_by_name:
        raise ValueError(f"{word!r} is no state of a job")
    return name


def start_message(
    command: Sequence[str | bytes | os.PathLike[str]], options: StartOptions
) -> pb.StartRequest:
    """Return the request for a job. Without a key it gets one, and may be sent twice."""
    request = pb.StartRequest()
    if "request" in options:
        request.CopyFrom(options["request"])
    request.requestID = options.get("key") or request.requestID or os.urandom(16).hex()
    request.tenant = options.get("tenant", request.tenant)
    request.name = options.get("name", request.name)
    request.labels.update(options.get("labels", {}))
    request.after.extend(options.get("after", ()))
    if "restart" in options:
        request.restart.CopyFrom(options["restart"])
    request.timeoutSeconds = options.get("timeout", request.timeoutSeconds)
    request.graceSeconds = options.get("grace", request.graceSeconds)
    variables = [(os.fsencode(name), os.fsencode(value)) for name, value in _env(options)]
    cwd = os.fsencode(options.get("cwd", ""))
    set_texts(request, map(os.fsencode, command), variables, cwd)
    return request


def _env(options: StartOptions) -> Iterable[tuple[str, str]]:
    return options.get("env", {}).items()


def set_texts(
    request: pb.StartRequest,
    words: Iterable[bytes],
    variables: Iterable[tuple[bytes, bytes]],
    cwd: bytes,
) -> None:
    """Set what may hold any bytes: as strings where it is UTF-8, as most often."""
    argv = list(words)
    if argv and all(map(_is_utf8, argv)):
        request.commandName, *arguments = (word.decode() for word in argv)
        request.Arguments.extend(arguments)
    else:
        request.rawArguments.extend(argv)
    for name, value in variables:
        if _is_utf8(name) and _is_utf8(value):
            request.environment[name.decode()] = value.decode()
        else:
            request.rawEnvironment.add(name=name, value=value)
    if cwd and _is_utf8(cwd):
        request.workingDirectory = cwd.decode()
    elif cwd:
        request.rawWorkingDirectory = cwd


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Me:
    """Who the server takes one for; `not_after` is when the certificate ends."""

    name: str
    tenants: tuple[str, ...]
    serial: str
    not_after: datetime


def read_me(answer: pb.WhoAmIResponse) -> Me:
    """Return who an answer says that one is."""
    return Me(answer.commonName, tuple(answer.tenants), answer.serial, _time(answer.notAfter))


_NEXT_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(message: Message) -> dict[str, Any]:
    """Return the fields by their names in snake case, so that new ones are shown, too.

    What a message can leave open and does is None; an enum's value is its word in
    small letters.
    """
    return {_snake(field.name): _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return list(value)
    if field.has_presence and not message.HasField(field.name):
        return None
    if isinstance(value, Timestamp):
        return _time(value).isoformat().replace("+00:00", "Z")
    if field.message_type is not None:
        return told(value)
    return word(field.enum_type, value) if field.enum_type is not None else value


def word(kind: EnumDescriptor, number: int) -> str:
    """Return an enum's value without its enum's name; as a number if it is a newer server's."""
    known = kind.values_by_number.get(number)
    return (
        known.name.removeprefix(f"{_snake(kind.name).upper()}_").lower() if known else str(number)
    )


def _snake(name: str) -> str:
    return _NEXT_WORD.sub("_", name).lower()
