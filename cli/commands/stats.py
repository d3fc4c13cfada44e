"""`jobworker stats`: what jobs use."""

from typing import TYPE_CHECKING

import click

from jobworker.cli.job_ids import JobID, short_id
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.selection import pages

if TYPE_CHECKING:
    from jobworker.client.connection import Service


@click.command()
@click.argument("jobs", type=JobID(), metavar="[JOB]...", nargs=-1)
@output_option
@client_command
def stats(service: "Service", jobs: tuple[str, ...], output: OutputFormat) -> None:
    """Show what jobs use, or have used: by default those that run.

    Processor time, memory and disk traffic are those of a job's whole tree.
    """
    from jobworker.cli.display.job import job_json
    from jobworker.cli.display.table import table_text, terminal_width
    from jobworker.cli.display.usage import USAGE_HEADS, usage_cells
    from jobworker.client.messages import read_job
    from jobworker.proto import workerservice_pb2 as pb

    names = jobs or [
        status.jobID for status in pages(service, pb.ListRequest(running=True), limit=0)
    ]
    found = [service.status(name) for name in names]
    if output == "json":
        click.echo("".join(f"{job_json(read_job(status))}\n" for status in found), nl=False)
        return
    rows: list[tuple[str, ...]] = [("JOB", "OWNER", *USAGE_HEADS)]
    rows += [(short_id(status.jobID), status.owner, *usage_cells(status.usage)) for status in found]
    click.echo(table_text(rows, terminal_width()))
