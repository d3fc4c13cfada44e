"""`jobworker status` and `list`: what jobs do and how they ended."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import tell
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import OutputFormat, client_command, output_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb

# The most that one page of the server's list holds.
PAGE = 1000


@click.command()
@click.argument("job", type=JobID())
@output_option
@client_command
def status(service: "Service", job: str, output: OutputFormat) -> None:
    """Show what a job does, or how it ended."""
    from jobworker.client.messages import read_job

    _show(read_job(service.status(job)), output)


@click.command("list")
@click.option("--running", "-r", is_flag=True, help="Only jobs that have not ended.")
@click.option("--owner", default="", help="Only jobs of this user.")
@click.option("--tenant", default="", help="Only jobs of this tenant.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="At most so many, newest first; 0 for all.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print IDs alone.")
@output_option
@client_command
def list_jobs(
    service: "Service",
    *,
    running: bool,
    owner: str,
    tenant: str,
    limit: int,
    quiet: bool,
    output: OutputFormat,
) -> None:
    """List the jobs that you may see, newest first."""
    from jobworker.cli.display.job import job_json, jobs_text
    from jobworker.cli.display.table import terminal_width
    from jobworker.client.messages import read_job
    from jobworker.proto import workerservice_pb2 as pb

    request = pb.ListRequest(running=running, owner=owner, tenant=tenant)
    jobs = [read_job(status) for status in pages(service, request, limit)]
    if limit and request.pageToken:
        tell(f"these are the newest {limit}, there are more: `-n 0` lists all")
    if quiet:
        click.echo("".join(f"{job.id}\n" for job in jobs), nl=False)
    elif output == "json":
        click.echo("".join(f"{job_json(job)}\n" for job in jobs), nl=False)
    else:
        click.echo(jobs_text(jobs, datetime.now(UTC), terminal_width()))


def pages(
    service: "Service", request: "pb.ListRequest", limit: int
) -> "Iterator[pb.QueryStatusResponse]":
    """Yield the listed jobs, page after page, at most `limit` unless it is 0.

    The request then has the token of the page to come, if there is one.
    """
    left = limit
    while True:
        request.pageSize = min(left, PAGE) if limit else PAGE
        reply = service.list(request)
        yield from reply.jobs
        left -= len(reply.jobs)
        request.pageToken = reply.nextPageToken
        if not reply.nextPageToken or (limit and left <= 0):
            return


def _show(job: "JobStatus", output: OutputFormat) -> None:
    from jobworker.cli.display.job import job_json, job_text

    click.echo(job_json(job) if output == "json" else job_text(job, datetime.now(UTC)))
