"""A job as the command shows it: read from the server's reply, written as text or JSON."""

import json
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from jobworker.cli.display.table import table_text
from jobworker.cli.display.usage import limits_json, limits_text, usage_text
from jobworker.cli.errors import CliError, printable
from jobworker.cli.job_ids import short_id
from jobworker.cli.quantities import moment_text, span_text
from jobworker.cli.signals import signal_name
from jobworker.client.errors import ClientError
from jobworker.client.messages import Attempt, JobStatus, read_job, told
from jobworker.proto import workerservice_pb2 as pb

if TYPE_CHECKING:
    from jobworker.client.connection import Service


def loss(job: JobStatus) -> str:
    """Say that a job has ended in nobody knows what way; empty for any other."""
    if job.reason != "lost":
        return ""
    return f"job {job.id} was lost, its exit code is unknown: {job.detail}"


def check_known(job: JobStatus) -> None:
    """Raise CliError for a job that was lost."""
    if lost := loss(job):
        raise CliError(lost)


def command_text(job: JobStatus) -> str:
    """Return the command line for a shell; of one that is not all there, what is and ..."""
    return shlex.join(job.command) + (" ..." if job.command_cut else "")


def job_json(job: JobStatus) -> str:
    """Return the job as one line of JSON, times in ISO 8601.

    What holds of the request stands beside the rest, also what this command does not know of.
    """
    shown = asdict(job)
    del shown["request"]
    asked = told(job.request)
    more = {name: value for name, value in asked.items() if name not in _TOLD_OTHERWISE}
    return json.dumps({**more, **shown}, default=_as_json)


# Of a request: what is no part of a status, or stands in it under another name.
_TOLD_OTHERWISE = {
    *("command_name", "arguments", "raw_arguments", "raw_working_directory", "no_network"),
    *("request_id", "environment", "raw_environment"),
}


def known_json(service: "Service", job: str, **known: object) -> str:
    """Return the job as it is now, as `job_json` has it; what is known, if that cannot be had.

    Who may start or stop a job may have no right to its status; and what was done is to be
    told, also when the server has gone since.
    """
    try:
        return job_json(read_job(service.status(job)))
    except ClientError:
        return json.dumps({"id": job, **known})


def _as_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, pb.Limits):
        return limits_json(value)
    if isinstance(value, pb.Usage):
        return told(value)
    if isinstance(value, pb.Upload):
        name = value.name.decode("utf-8", "replace")
        return {"name": name, "mode": value.mode, "size": value.size, "sha256": value.sha256}
    raise TypeError(f"no JSON form for {value!r}")


def job_text(job: JobStatus, now: datetime) -> str:
    """Return the job as lines of `Name: value`, for a terminal; ages are as of `now`."""
    ended = job.ended_at or now
    rows = {
        "Job": job.id,
        "Name": job.request.name,
        "Command": command_text(job),
        "State": f"{job.state}: {outcome_text(job)}" if job.ended else job.state,
        "PID": "" if job.ended or not job.pid else str(job.pid),
        "Owner": f"{job.owner} (tenant {job.tenant})" if job.tenant else job.owner,
        "Directory": job.working_directory,
        "Labels": labels_text(job),
        "Within": f"job {job.inside}" if job.inside else "",
        "Started": _when(job.created_at, now),
        "Ended": _when(job.ended_at, now),
        "Took": span_text(ended - job.created_at) if job.created_at and job.ended else "",
        "Output": _output_text(job),
        "Runs as": _runs_as(job),
        "Stops by": _stop_text(job),
        "Limits": limits_text(job.limits),
        "Used": usage_text(job.usage) if job.usage else "",
        "Ready": ready_text(job),
        "Attempt": str(job.attempt) if job.attempts else "",
        "Before": attempts_text(job.attempts),
        "Detail": job.detail,
    }
    return "\n".join(f"{name + ':':<11}{printable(text)}" for name, text in rows.items() if text)


def ready_text(job: JobStatus) -> str:
    """Whether it is, of a job with a health check that goes on."""
    if job.ended or not job.request.HasField("health"):
        return ""
    return f"{'yes' if job.ready else 'no'}, as port {job.request.health.port} tells"


def attempts_text(attempts: Sequence[Attempt]) -> str:
    """Return how the latest attempts before ended: "3 exited with 1, 2 killed by KILL"."""
    ends = (f"{one.number} {end_text(one)}" for one in reversed(attempts[-_SHOWN_ATTEMPTS:]))
    return ", ".join(ends) + (", ..." if len(attempts) > _SHOWN_ATTEMPTS else "")


def end_text(ended: JobStatus | Attempt) -> str:
    """Return how a job, or an attempt of one, ended."""
    if ended.reason == "lost":
        return "lost, exit code unknown"
    if ended.reason == "cannot_start":
        return _NEVER_BEGUN["cannot_start"]
    end = f"exited with {ended.exit_code}"
    if ended.signal:
        end = f"killed by {signal_name(ended.signal)}"
    return _WHY.get(ended.reason or "", "") + end


def _runs_as(job: JobStatus) -> str:
    shared = ", as all jobs do" if job.user_shared else ""
    isolated = "" if job.isolation in {"none", "unspecified"} else f", {job.isolation}"
    return f"{job.user}{shared}{isolated}{'' if job.network else ', without network'}"


def _stop_text(job: JobStatus) -> str:
    """How a stop begins, unless it is as most often."""
    if job.stop_mode != "main" and job.stop_signal in {0, signal.SIGTERM}:
        return ""
    whom = "its main process" if job.stop_mode == "main" else "all its processes"
    return f"{signal_name(job.stop_signal)} to {whom}"


def _output_text(job: JobStatus) -> str:
    so_far = "" if job.output_complete else " so far"
    dropped = f", the first {job.output_begin} not kept" if job.output_begin else ""
    return f"{job.output_bytes} bytes{so_far}{dropped}"


# Of the attempts before, so many are told of.
_SHOWN_ATTEMPTS = 5
# Reasons that say why the service ended a job, before how that went.
_WHY = {
    "stopped": "stopped, ",
    "timed_out": "timed out, ",
    "output_limit": "over its output limit, ",
    "out_of_memory": "out of memory, ",
    "unhealthy": "its health check failed, ",
}
# Reasons why one that waited for its turn was not started.
_NEVER_BEGUN = {
    "refused": "refused when its turn came",
    "queue_timeout": "waited too long for its turn",
    "cannot_start": "could not be started",
    "dependency_failed": "not started, for how another job ended",
}


def never_begun(job: JobStatus) -> str:
    """Say why a job ended that waited for its turn, and had none; empty for any other."""
    if not job.ended or job.pid:
        return ""
    if job.attempts and job.reason == "stopped":
        return "stopped before it was started again"
    return _NEVER_BEGUN.get(job.reason or "", "stopped before its turn")


def outcome_text(job: JobStatus) -> str:
    """Return how a job ended, or its state while it has not: "exited with 3"."""
    if not job.ended:
        return job.state
    return never_begun(job) or end_text(job)


def _when(time: datetime | None, now: datetime) -> str:
    if time is None:
        return ""
    return f"{moment_text(time)} ({span_text(now - time)} ago)"


def jobs_text(
    jobs: Sequence[JobStatus],
    now: datetime,
    width: int | None,
    columns: Sequence[str] = (),
    *,
    coloured: bool = False,
) -> str:
    """Return jobs as a table, cut at `width` columns if given; ages are as of `now`.

    The columns are of COLUMNS, by default those that say something.
    """
    if not columns:
        named = any(job.request.name for job in jobs)
        # A column that says nothing takes the room of the commands.
        columns = [name for name in USUAL if named or name != "name"]
    cells = [COLUMNS[name] for name in columns]
    rows = [[name.upper() if name != "id" else "JOB" for name in columns]]
    rows += [[cell(job, now) for cell in cells] for job in jobs]
    styles = {columns.index("state"): _state_style} if coloured and "state" in columns else {}
    return table_text(rows, width, styles)


def labels_text(job: JobStatus) -> str:
    """Return the labels in a line, by their keys."""
    return ",".join(f"{key}={value}" for key, value in sorted(job.request.labels.items()))


def _age(time: datetime | None, now: datetime) -> str:
    return span_text(now - time) if time else "-"


# What a table of jobs may show, by the names of its columns.
COLUMNS: dict[str, Callable[[JobStatus, datetime], str]] = {
    "id": lambda job, _: short_id(job.id),
    "name": lambda job, _: printable(job.request.name) or "-",
    "owner": lambda job, _: job.owner,
    "tenant": lambda job, _: job.tenant or "-",
    "age": lambda job, now: _age(job.created_at, now),
    "ended": lambda job, now: _age(job.ended_at, now),
    "state": lambda job, _: outcome_text(job),
    "code": lambda job, _: "-" if job.exit_code is None else str(job.exit_code),
    "pid": lambda job, _: str(job.pid or "-"),
    "user": lambda job, _: job.user,
    "queue": lambda job, _: job.request.queue or "-",
    "labels": lambda job, _: printable(labels_text(job)) or "-",
    "output": lambda job, _: str(job.output_bytes),
    "command": lambda job, _: printable(command_text(job)),
}
USUAL = ("id", "name", "owner", "tenant", "age", "state", "command")


def _state_style(cell: str) -> str:
    if cell == "exited with 0":
        return click.style(cell, fg="green")
    if cell in ("running", "starting"):
        return click.style(cell, fg="cyan")
    if cell in ("pending", "paused", "stopping"):
        return click.style(cell, fg="yellow")
    return cell if cell == "STATE" else click.style(cell, fg="red")
