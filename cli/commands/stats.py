"""`jobworker stats`: what jobs use."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from jobworker.cli.job_ids import JobID, short_id
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.quantities import Seconds
from jobworker.cli.selection import pages
from jobworker.client.errors import NoSuchJob

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus

_LEAST_SECONDS = 0.2


@click.command()
@click.argument("jobs", type=JobID(), metavar="[JOB]...", nargs=-1)
@click.option("--watch", "-w", is_flag=True, help="Again and again; until all JOBs have ended.")
@click.option(
    "--interval",
    type=Seconds(),
    default=2.0,
    metavar="TIME",
    show_default="2s",
    help="With --watch, how often; at least 200ms.",
)
@output_option
@client_command
def stats(
    service: "Service", *, jobs: tuple[str, ...], watch: bool, interval: float, output: OutputFormat
) -> None:
    """Show what jobs use, or have used: by default those that run.

    Processor time, memory and disk traffic are those of a job's whole tree. `top`
    shows what is used at the moment, sorted.
    """
    while True:
        found = list(_found(service, jobs))
        if watch and output == "text" and sys.stdout.isatty():
            click.clear()
        _show(found, output)
        if not watch or (jobs and all(job.ended for job in found)):
            return
        sys.stdout.flush()
        time.sleep(max(interval, _LEAST_SECONDS))


def _found(service: "Service", jobs: tuple[str, ...]) -> "Iterator[JobStatus]":
    from jobworker.client.messages import read_job
    from jobworker.proto import workerservice_pb2 as pb

    if jobs:
        yield from (read_job(service.status(job)) for job in jobs)
        return
    for listed in pages(service, pb.ListRequest(running=True), limit=0):
        try:
            yield read_job(service.status(listed.jobID))
        except NoSuchJob:
            # It has ended and was removed, since it was listed.
            continue


def _show(found: "Sequence[JobStatus]", output: OutputFormat) -> None:
    from jobworker.cli.display.job import job_json
    from jobworker.cli.display.table import table_text, terminal_width
    from jobworker.cli.display.usage import USAGE_HEADS, usage_cells
    from jobworker.proto import workerservice_pb2 as pb

    if output == "json":
        click.echo("".join(f"{job_json(job)}\n" for job in found), nl=False)
        return
    rows: list[tuple[str, ...]] = [("JOB", "OWNER", *USAGE_HEADS)]
    rows += [(short_id(job.id), job.owner, *usage_cells(job.usage or pb.Usage())) for job in found]
    click.echo(table_text(rows, terminal_width()))
