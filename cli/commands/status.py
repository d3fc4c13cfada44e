"""`jobworker status` and `list`: what jobs do and how they ended."""

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack

import click

from jobworker.cli.errors import tell
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.selection import STATES, Selection, list_request, pages, selecting_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus


# Equals stay newest first.
_ORDERS: "dict[str, Callable[[JobStatus], Any]]" = {
    "created": lambda _: 0,
    "ended": lambda job: -job.ended_at.timestamp() if job.ended_at else -math.inf,
    "name": lambda job: (not job.request.name, job.request.name),
    "owner": lambda job: (job.owner, job.tenant),
    "state": lambda job: STATES.index(job.state) if job.state in STATES else len(STATES),
    "output": lambda job: -job.output_bytes,
}


@click.command()
@click.argument("job", type=JobID())
@output_option
@client_command
def status(service: "Service", job: str, output: OutputFormat) -> None:
    """Show what a job does, or how it ended."""
    from jobworker.client.messages import read_job

    _show(read_job(service.status(job)), output)


class Columns(click.ParamType[tuple[str, ...]]):
    """Names of columns, with commas between them."""

    name = "columns"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return them; one that there is not is a usage error."""
        from jobworker.cli.display.job import COLUMNS

        names = tuple(str(value).split(","))
        for name in names:
            if name not in COLUMNS:
                known = ", ".join(COLUMNS)
                self.fail(f"there is no column {name!r}: they are {known}", param, ctx)
        return names


@click.command("list")
@selecting_options
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="At most so many, newest first; 0 for all.",
)
@click.option(
    "--sort",
    type=click.Choice(list(_ORDERS)),
    default="created",
    show_default=True,
    help="Show these in another order: the last to end first, or by name, owner, state or output.",
)
@click.option("--reverse", is_flag=True, help="Show them the other way round.")
@click.option(
    "--columns", type=Columns(), metavar="NAMES", help="Show these, such as id,state,labels,queue."
)
@click.option("--quiet", "-q", is_flag=True, help="Print IDs alone.")
@output_option
@client_command
def list_jobs(
    service: "Service",
    *,
    limit: int,
    sort: str,
    reverse: bool,
    columns: tuple[str, ...] | None,
    quiet: bool,
    output: OutputFormat,
    **select: Unpack[Selection],
) -> None:
    """List the jobs that you may see, newest first."""
    from jobworker.cli.display.job import job_json, jobs_text
    from jobworker.cli.display.table import is_coloured, terminal_width
    from jobworker.client.messages import read_job

    request = list_request(select)
    jobs = [read_job(status) for status in pages(service, request, limit)]
    if limit and request.pageToken:
        tell(f"these are the newest {limit}, there are more: `-n 0` lists all")
    jobs.sort(key=_ORDERS[sort])
    if reverse:
        jobs.reverse()
    if quiet:
        click.echo("".join(f"{job.id}\n" for job in jobs), nl=False)
    elif output == "json":
        click.echo("".join(f"{job_json(job)}\n" for job in jobs), nl=False)
    else:
        now, width = datetime.now(UTC), terminal_width()
        click.echo(jobs_text(jobs, now, width, columns or (), coloured=is_coloured()))


def _show(job: "JobStatus", output: OutputFormat) -> None:
    from jobworker.cli.display.job import job_json, job_text

    click.echo(job_json(job) if output == "json" else job_text(job, datetime.now(UTC)))
