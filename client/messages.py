"""What the server's messages say, as plain values."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's status. The field names are the keys of the JSON form.

    `state` is starting, running, paused, stopping or ended; `reason`, once ended, why:
    exited, signaled, stopped, lost, timed_out, output_limit or out_of_memory.
    `exit_code`, once ended, is as a shell reports it, 128+N for signal N; a lost job has none.
    The end of the `command` is left out where `command_cut`. Of the `output_bytes`
    written, those before `output_begin` are not kept. `user` is the Unix user it
    runs as; `user_shared`, that all jobs do. A stop begins with `stop_signal` to the
    whole `tree` or the `main` process (`stop_mode`). A list has no `usage`.
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
        detail=status.detail,
    )


def _command(status: pb.QueryStatusResponse) -> tuple[str, ...]:
    if status.rawArguments:
        return tuple(map(os.fsdecode, status.rawArguments))
    return (status.commandName, *status.Arguments)


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


_NEXT_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(message: Message) -> dict[str, Any]:
    """Return the fields by their names in snake case, so that new ones are shown, too.

    What a message can leave open and does is None; an enum's value is its word in
    small letters.
    """
    return {_snake(field.name): _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return list(value)
    if field.has_presence and not message.HasField(field.name):
        return None
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
