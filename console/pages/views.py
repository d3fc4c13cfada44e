"""A job as pages and events tell it: plain texts, in the words of the command."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypedDict

from google.protobuf.message import Message

from jobworker.cli.display.job import command_text, end_text, labels_text, outcome_text, ready_text
from jobworker.cli.display.usage import limits_text, usage_text
from jobworker.cli.job_ids import short_id
from jobworker.cli.quantities import size_text, span_text
from jobworker.client.messages import JobStatus, read_job
from jobworker.console.text import visible
from jobworker.proto import workerservice_pb2 as pb

# Of a command in a list; the job's own page has all of it.
_MOST_COMMAND = 300


class Row(TypedDict):
    """A job in a list. All texts are visible characters, and none is HTML."""

    id: str
    short: str
    name: str
    owner: str
    tenant: str
    labels: str
    created: str
    took: str
    state: str
    mood: str
    command: str
    # Whether it may be chosen, to be stopped, say.
    choose: bool


def row(message: pb.QueryStatusResponse, *, choose: bool = False) -> Row:
    """The row of a job of a list."""
    job = read_job(message)
    command = visible(command_text(job))
    return Row(
        id=job.id,
        short=short_id(job.id),
        name=visible(job.request.name),
        owner=visible(job.owner),
        tenant=visible(job.tenant),
        labels=visible(labels_text(job)),
        created=moment(job.created_at),
        took=span_text(job.ended_at - job.created_at) if job.ended_at and job.created_at else "",
        state=visible(outcome_text(job)),
        mood=mood(job),
        command=command if len(command) <= _MOST_COMMAND else f"{command[:_MOST_COMMAND]} …",
        choose=choose,
    )


def mood(job: JobStatus) -> str:
    """The class by which the style sheet colours a state: live, wait, good or bad."""
    if not job.ended:
        return "wait" if job.state in {"pending", "paused"} else "live"
    return "good" if job.exit_code == 0 else "bad"


def facts(message: pb.QueryStatusResponse) -> dict[str, str]:
    """What there is to say of one job, by names of people; without what is empty."""
    job = read_job(message)
    ended = job.ended_at
    isolation = "" if job.isolation in {"none", "unspecified"} else f", {job.isolation}"
    network = "" if job.network else ", without network"
    dropped = f", the first {size_text(job.output_begin)} not kept" if job.output_begin else ""
    told: Mapping[str, str] = {
        "State": outcome_text(job) if job.ended else job.state,
        "Detail": job.detail,
        "Name": job.request.name,
        "Labels": labels_text(job),
        "Owner": f"{job.owner} (tenant {job.tenant})" if job.tenant else job.owner,
        "Ready": ready_text(job),
        "Attempt": str(job.attempt) if job.attempts else "",
        "Started": moment(job.created_at),
        "Ended": moment(ended),
        "Took": span_text(ended - job.created_at) if ended and job.created_at else "",
        "PID": "" if job.ended or not job.pid else str(job.pid),
        "Directory": job.working_directory.encode(errors="replace").decode(),
        "Within": f"job {job.inside}" if job.inside else "",
        "Runs as": f"{job.user}{isolation}{network}",
        "Limits": limits_text(job.limits),
        "Used": usage_text(job.usage) if job.usage else "",
        "Output": f"{size_text(job.output_bytes)}{dropped}",
    }
    return {name: visible(text) for name, text in told.items() if text}


class AttemptRow(TypedDict):
    """A time that a job was started before; all texts are visible characters."""

    number: int
    started: str
    took: str
    end: str
    output: str


def attempts(message: pb.QueryStatusResponse) -> list[AttemptRow]:
    """The attempts before this one, the latest first."""
    return [
        AttemptRow(
            number=one.number,
            started=moment(one.started_at),
            took=span_text(one.ended_at - one.started_at),
            end=visible(": ".join(filter(None, (end_text(one), one.detail)))),
            output=size_text(one.output_end - one.output_begin),
        )
        for one in reversed(read_job(message).attempts)
    ]


def stamped(message: Message, field: str) -> str:
    """The time in a field of a message, empty where it is not set."""
    return moment(getattr(message, field).ToDatetime(tzinfo=UTC)) if message.HasField(field) else ""


def moment(time: datetime | None) -> str:
    """A time, the same for everybody who looks."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if time else ""
