"""`jobworker rm` and `jobworker prune`: forget jobs that have ended, and their output."""

import json
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import OutputFormat, client_command, output_option, say_done
from jobworker.cli.quantities import Seconds, size_text

if TYPE_CHECKING:
    from jobworker.client.connection import Service


@click.command("rm")
@click.argument("jobs", type=JobID(), metavar="JOB...", nargs=-1, required=True)
@output_option
@client_command
def remove(service: "Service", jobs: tuple[str, ...], output: OutputFormat) -> None:
    """Forget jobs that have ended, with their output, and print each ID when done."""
    from jobworker.cli.commands.each import for_each

    def forget(job: str) -> None:
        service.remove(job)
        say_done(job, output)

    for_each(service, jobs, forget)


@click.command()
@click.option(
    "--older-than",
    type=Seconds(),
    default=0,
    metavar="TIME",
    help="Only jobs that ended so long ago, such as 12h or 7d.",
)
@click.option("--owner", default="", help="Only jobs of this user.")
@click.option("--tenant", default="", help="Only jobs of this tenant.")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@output_option
@client_command
def prune(
    service: "Service",
    *,
    older_than: float,
    owner: str,
    tenant: str,
    force: bool,
    output: OutputFormat,
) -> None:
    """Forget every job that has ended and that you may stop, with its output."""
    from jobworker.proto import workerservice_pb2 as pb

    if not force:
        _confirm("Forget these jobs and their output for ever?")
    reply = service.prune(pb.PruneRequest(olderThanSeconds=older_than, owner=owner, tenant=tenant))
    if output == "json":
        click.echo(json.dumps({"jobs": list(reply.jobIDs), "bytes": reply.bytes}))
    else:
        click.echo("".join(f"{job}\n" for job in reply.jobIDs), nl=False)
        click.echo(f"{len(reply.jobIDs)} jobs, {size_text(reply.bytes)} of output", err=True)


def _confirm(question: str) -> None:
    """Ask on stderr. Raises CliError unless the answer is yes."""
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort:
        # Ctrl-C, or there is nobody to ask; the answer's line has not ended.
        click.echo(err=True)
    raise CliError("nothing was removed, as nobody said yes; --force does not ask")
