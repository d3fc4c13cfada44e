"""`jobworker schedule`: has jobs started again and again, and shows what came of it."""

import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click
from click.shell_completion import CompletionItem

from jobworker.cli.commands.new_job import AS_TYPED, JobOptions, run_options, start_request
from jobworker.cli.display.table import table_text, terminal_width
from jobworker.cli.errors import CliError, printable, tell
from jobworker.cli.job_ids import PATIENCE_SECONDS, short_id
from jobworker.cli.options import (
    OutputFormat,
    client_command,
    endpoint,
    output_option,
    say_json,
)
from jobworker.cli.quantities import moment_text, span_text
from jobworker.cli.suggestions import SuggestingGroup
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

_OVERLAPS = ("skip", "queue", "replace")
_LOCALTIME = Path("/etc/localtime")
_ZONES = "zoneinfo/"
# So long before the end of the certificate that a schedule needs it is told.
_SOON_DAYS = 14


@click.group(cls=SuggestingGroup)
def schedule() -> None:
    """Have jobs started again and again, at times as crontab(5) has them.

    \b
    jobworker schedule add --name nightly --cron '30 2 * * *' -- ./backup.sh
    jobworker schedule list
    jobworker schedule run nightly

    Each run is a job of its own, which waits for its turn where there is no room.
    Your rights are asked for again each time, by the certificate that the
    schedule was added with; `renew` has it be the one of today.
    """


class ScheduleName(click.ParamType[str]):
    """A schedule's name; shells complete one's own."""

    name = "name"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - given by click
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return those that begin so; none if nobody can be asked."""
        from jobworker.client.connection import connect

        try:
            with connect(endpoint(ctx)) as service:
                me = service.whoami().commonName
                found = service.schedules(me, PATIENCE_SECONDS)
        except (CliError, ClientError):
            return []
        return [
            CompletionItem(one.schedule.name, help=one.schedule.cron)
            for one in found
            if one.schedule.name.startswith(incomplete)
        ]


_NAME = click.argument("name", type=ScheduleName())
_OWNER = click.option("--owner", default="", metavar="USER", help="Whose; by default yours.")


@schedule.command(context_settings=AS_TYPED)
@click.option("--name", required=True, help="What to call it, and the job of each run.")
@click.option(
    "--cron",
    required=True,
    metavar="TIMES",
    help="Minute, hour, day of the month, month, day of the week: '*/15 8-18 * * mon-fri'.",
)
@click.option(
    "--tz",
    "time_zone",
    metavar="ZONE",
    help="Where that is the time, such as Europe/Berlin; by default here.",
)
@click.option(
    "--overlap",
    type=click.Choice(_OVERLAPS),
    default="skip",
    show_default=True,
    help="While the run before has not ended: leave this one out, let it wait in the queue, "
    "or stop the other.",
)
@click.option(
    "--catch-up",
    type=click.Choice(("none", "one")),
    default="none",
    show_default=True,
    help="How many runs make up for those that were missed as the host was off.",
)
@click.option("--replace", is_flag=True, help="In place of your schedule of that name.")
@run_options
@output_option
@client_command
def add(
    service: "Service",
    *,
    cron: str,
    time_zone: str | None,
    overlap: str,
    catch_up: str,
    replace: bool,
    output: OutputFormat,
    **job: Unpack[JobOptions],
) -> None:
    """Have COMMAND started at these times, as `jobworker start` would.

    Where runs may overlap their jobs have no name, as one at a time has it.
    """
    from jobworker.proto import workerservice_pb2 as pb

    start = start_request(job)
    start.ClearField("requestID")
    if overlap != "skip":
        start.ClearField("name")
    added = service.add_schedule(
        pb.AddScheduleRequest(
            schedule=pb.Schedule(
                name=job["name"],
                cron=cron,
                timeZone=_zone_here() if time_zone is None else time_zone,
                overlap=getattr(pb, f"SCHEDULE_OVERLAP_{overlap.upper()}"),
                catchUp=catch_up == "one",
                start=start,
            ),
            replace=replace,
        )
    )
    _say(added, output, f"{job['name']} runs next at {moment_text(_time(added.next))}")


@schedule.command("list")
@_OWNER
@output_option
@client_command
def list_schedules(service: "Service", *, owner: str, output: OutputFormat) -> None:
    """Show when each runs next, and what came of the last time."""
    found = service.schedules(owner)
    if output == "json":
        for one in found:
            say_json(_as_json(one))
        return
    if found:
        now = datetime.now(UTC)
        rows = [_HEADS, *(_cells(one, now) for one in found)]
        click.echo(table_text(rows, terminal_width()))
    for one in found:
        if soon := _ends_soon(one):
            tell(soon)


@schedule.command()
@_NAME
@_OWNER
@output_option
@client_command
def pause(service: "Service", *, name: str, owner: str, output: OutputFormat) -> None:
    """Run nothing until it is resumed; a run that goes on does."""
    changed = _change(service, name, owner, "PAUSE")
    _say(changed, output, f"{name} is paused")


@schedule.command()
@_NAME
@output_option
@client_command
def resume(service: "Service", *, name: str, output: OutputFormat) -> None:
    """Run it again from the next time on."""
    changed = _change(service, name, "", "RESUME")
    _say(changed, output, f"{name} runs next at {moment_text(_time(changed.next))}")


@schedule.command()
@_NAME
@output_option
@client_command
def run(service: "Service", *, name: str, output: OutputFormat) -> None:
    """Run it now, too, and print the job's ID."""
    changed = _change(service, name, "", "RUN")
    if changed.skipped:
        raise CliError(f"{name} is not run: {changed.skipped}")
    _say(changed, output, changed.lastJobID)


@schedule.command()
@_NAME
@output_option
@client_command
def renew(service: "Service", *, name: str, output: OutputFormat) -> None:
    """Let the rights that each run takes be those of your certificate of today."""
    changed = _change(service, name, "", "RENEW")
    end = moment_text(_time(changed.notAfter))
    _say(changed, output, f"{name} runs until your certificate ends, at {end}")


@schedule.command()
@_NAME
@_OWNER
@output_option
@client_command
def remove(service: "Service", *, name: str, owner: str, output: OutputFormat) -> None:
    """Have it run no more. The jobs that it has started stay."""
    changed = _change(service, name, owner, "REMOVE")
    _say(changed, output, f"{name} is removed")


def _change(service: "Service", name: str, owner: str, change: str) -> "pb.ScheduleStatus":
    from jobworker.proto import workerservice_pb2 as pb

    return service.change_schedule(
        pb.ChangeScheduleRequest(
            name=name, owner=owner, change=getattr(pb, f"SCHEDULE_CHANGE_{change}")
        )
    )


def _say(status: "pb.ScheduleStatus", output: OutputFormat, text: str) -> None:
    if output == "json":
        say_json(_as_json(status))
    else:
        click.echo(text)


def _zone_here() -> str:
    """Return the time zone of this machine, empty (UTC) if it does not say."""
    if named := os.environ.get("TZ", "").removeprefix(":"):
        return named
    if not _LOCALTIME.is_symlink():
        return ""
    return str(_LOCALTIME.readlink()).partition(_ZONES)[2]


def _time(stamp: "Timestamp") -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


_HEADS = ("NAME", "OWNER", "TIMES", "ZONE", "NEXT", "LAST", "OUTCOME", "COMMAND")


def _cells(status: "pb.ScheduleStatus", now: datetime) -> tuple[str, ...]:
    told = status.schedule
    last = f"{span_text(now - _time(status.last))} ago" if status.HasField("last") else "-"
    coming = f"in {span_text(_time(status.next) - now)}" if status.HasField("next") else "paused"
    ran = f"job {short_id(status.lastJobID)}" if status.lastJobID else "-"
    return (
        told.name,
        status.owner,
        told.cron,
        told.timeZone or "UTC",
        coming,
        last,
        f"not run: {printable(status.skipped)}" if status.skipped else ran,
        printable(_command(told)),
    )


def _command(told: "pb.Schedule") -> str:
    return shlex.join((told.start.commandName, *told.start.Arguments))


def _ends_soon(status: "pb.ScheduleStatus") -> str:
    if not status.HasField("notAfter"):
        return ""
    end = _time(status.notAfter)
    left = end - datetime.now(UTC)
    name = status.schedule.name
    if left.days >= _SOON_DAYS:
        return ""
    if left.total_seconds() <= 0:
        return f"{name} runs no more: its certificate ended at {moment_text(end)}; see `renew`"
    return f"{name} runs until its certificate ends, at {moment_text(end)}; see `renew`"


def _as_json(status: "pb.ScheduleStatus") -> dict[str, Any]:
    from jobworker.client.messages import word
    from jobworker.proto import workerservice_pb2 as pb

    told = status.schedule
    start = told.start
    words = [start.commandName, *start.Arguments]
    if start.rawArguments:
        words = [os.fsdecode(one) for one in start.rawArguments]

    def moment(field: str) -> str | None:
        stamp: Timestamp = getattr(status, field)
        return f"{_time(stamp):%Y-%m-%dT%H:%M:%SZ}" if status.HasField(field) else None

    return {
        "name": told.name,
        "owner": status.owner,
        "tenant": status.tenant or None,
        "cron": told.cron,
        "time_zone": told.timeZone or "UTC",
        "overlap": word(pb.ScheduleOverlap.DESCRIPTOR, told.overlap),
        "catch_up": told.catchUp,
        "paused": status.paused,
        "next": moment("next"),
        "last": moment("last"),
        "last_job": status.lastJobID or None,
        "skipped": status.skipped or None,
        "certificate_ends": moment("notAfter"),
        "command": words,
        "working_directory": start.workingDirectory or None,
        "queue": start.queue or None,
    }
