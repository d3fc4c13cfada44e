"""`jobworker events`: what happens to jobs, as it happens."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import printable, tell
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.quantities import Moment
from jobworker.cli.selection import NAME, OWNER, TENANT

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what is still to happen.")
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="From then on, as far as that is known: 10m ago, or a date and time.",
)
@click.option(
    "--cursor", default="", metavar="CURSOR", help="From behind the event that had this cursor."
)
@NAME
@click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only jobs with this label; more than once for all of several.",
)
@OWNER
@TENANT
@output_option
@client_command
def events(
    service: "Service",
    *,
    follow: bool,
    since: datetime | None,
    cursor: str,
    name: str,
    labels: tuple[str, ...],
    owner: str,
    tenant: str,
    output: OutputFormat,
) -> None:
    """Tell of each state that jobs come to, of those that you may list.

    Without -f it ends with what is known now, which is what happened of late.
    When the connection breaks it goes on from there once the server is back.
    With -o json each has a cursor, from behind which a later call goes on.
    """
    from jobworker.client.follow import read_events
    from jobworker.proto import workerservice_pb2 as pb

    pairs = [text.partition("=") for text in labels]
    for text, (_, equals, _) in zip(labels, pairs, strict=True):
        if not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--label")
    if cursor and since:
        raise click.UsageError("--cursor and --since both say where to begin")
    request = pb.EventsRequest(
        noFollow=not follow,
        cursor=cursor,
        name=name,
        labels={key: value for key, _, value in pairs},
        owner=owner,
        tenant=tenant,
    )
    if since:
        request.since.FromDatetime(since)
    for event in read_events(service, request):
        _tell(event, output)


def _tell(event: "pb.Event", output: OutputFormat) -> None:
    from jobworker.cli.display.job import job_json, outcome_text
    from jobworker.cli.job_ids import short_id
    from jobworker.client.messages import read_job

    if event.missed:
        words = "what happened before is not known any more: `jobworker list` tells how jobs are"
        if output == "json":
            click.echo(json.dumps({"cursor": event.cursor, "missed": True, "job": None}))
        else:
            tell(words)
        return
    job = read_job(event.job)
    time = event.time.ToDatetime(tzinfo=UTC)
    if output == "json":
        told = {
            "cursor": event.cursor,
            "missed": False,
            "time": time.isoformat().replace("+00:00", "Z"),
            "job": json.loads(job_json(job)),
        }
        click.echo(json.dumps(told))
        return
    called = job.request.name or short_id(job.id)
    state = f"ended: {outcome_text(job)}" if job.ended else job.state
    attempt = f" (attempt {job.attempt})" if job.attempt > 1 else ""
    local = time.astimezone().isoformat(sep=" ", timespec="milliseconds")[:23]
    click.echo(printable(f"{local}  {job.owner}  {called}  {state}{attempt}"))
