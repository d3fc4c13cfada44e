"""`jobworker rm` and `jobworker prune`: forget jobs that have ended, and their output."""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError
from jobworker.cli.options import OutputFormat, client_command, output_option, say_json
from jobworker.cli.quantities import Seconds, size_text
from jobworker.cli.selection import (
    FAILED,
    LABEL,
    NAME,
    OWNER,
    TENANT,
    choosing_jobs,
    list_request,
    pages,
    selected,
)
from jobworker.client.errors import CallFailed

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

# Of the jobs that would be forgotten, so many are shown.
_SHOWN = 20


@click.command("rm")
@output_option
@client_command
@choosing_jobs("ended")
def remove(service: "Service", *, jobs: tuple[str, ...], output: OutputFormat) -> None:
    """Forget jobs that have ended, with their output, and print each ID when done."""
    from jobworker.cli.commands.each import for_each
    from jobworker.cli.display.job import known_json

    def forget(job: str) -> None:
        # Afterwards there is nothing left to tell.
        told = known_json(service, job) if output == "json" else job
        service.remove(job)
        click.echo(told)

    for_each(service, jobs, forget)


@click.command()
@click.option(
    "--older-than",
    type=Seconds(),
    default=0,
    metavar="TIME",
    help="Only jobs that ended so long ago, such as 12h or 7d.",
)
@OWNER
@TENANT
@NAME
@LABEL
@FAILED
@click.option("--dry-run", is_flag=True, help="Show what would be forgotten, and do nothing.")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@output_option
@client_command
def prune(
    service: "Service",
    *,
    older_than: float,
    owner: str,
    tenant: str,
    name: str,
    labels: tuple[str, ...],
    failed: bool,
    dry_run: bool,
    force: bool,
    output: OutputFormat,
) -> None:
    """Forget every job that has ended and that you may stop, with its output.

    It shows on stderr what it will take, and asks.
    """
    from jobworker.proto import workerservice_pb2 as pb

    request = pb.PruneRequest(olderThanSeconds=older_than, owner=owner, tenant=tenant)
    if name or labels or failed:
        # A server that does not know of these would take all.
        chosen = _chosen(service, request, name=name, labels=labels, failed=failed)
        would = pb.WouldPruneResponse(
            count=len(chosen), bytes=sum(map(_kept, chosen)), jobs=chosen[:_SHOWN]
        )
        if dry_run:
            _tell_what_would_be(would, output)
            return
        if not force and not _shown_and_agreed(would):
            return
        _say_removed(_removed(service, chosen), output)
        return
    if dry_run:
        _tell_what_would_be(service.would_prune(request), output)
        return
    if not force and not _agreed(service, request):
        return
    _say_removed(service.prune(request), output)


def _chosen(
    service: "Service",
    request: "pb.PruneRequest",
    *,
    name: str,
    labels: tuple[str, ...],
    failed: bool,
) -> "list[pb.QueryStatusResponse]":
    """The jobs that have ended so long ago, and are what is asked for; the newest first."""
    select = selected(
        states=("ended",),
        failed=failed,
        name=name,
        labels=labels,
        owner=request.owner,
        tenant=request.tenant,
    )
    latest = datetime.now(UTC) - timedelta(seconds=request.olderThanSeconds)
    return [
        job
        for job in pages(service, list_request(select), 0)
        if job.outputComplete and job.endedAt.ToDatetime(tzinfo=UTC) <= latest
    ]


def _kept(job: "pb.QueryStatusResponse") -> int:
    return job.outputBytes - job.outputBegin


def _removed(service: "Service", jobs: "list[pb.QueryStatusResponse]") -> "pb.PruneResponse":
    """Forget those of these that one may stop."""
    from jobworker.proto import workerservice_pb2 as pb

    reply = pb.PruneResponse()
    for job in jobs:
        try:
            service.remove(job.jobID)
        except CallFailed as error:
            # As of a prune of all: what is another's, or has gone meanwhile, is left out.
            if error.code not in ("PERMISSION_DENIED", "NOT_FOUND"):
                raise
        else:
            reply.jobIDs.append(job.jobID)
            reply.bytes += _kept(job)
    return reply


def _say_removed(reply: "pb.PruneResponse", output: OutputFormat) -> None:
    if output == "json":
        jobs = [{"id": job} for job in reply.jobIDs]
        say_json({"count": len(jobs), "bytes": reply.bytes, "jobs": jobs})
    else:
        click.echo("".join(f"{job}\n" for job in reply.jobIDs), nl=False)
        click.echo(_sum(len(reply.jobIDs), reply.bytes), err=True)


def _tell_what_would_be(would: "pb.WouldPruneResponse", output: OutputFormat) -> None:
    from jobworker.cli.display.job import job_json
    from jobworker.client.messages import read_job

    if output == "json":
        jobs = [json.loads(job_json(read_job(job))) for job in would.jobs]
        say_json({"count": would.count, "bytes": would.bytes, "jobs": jobs})
    else:
        click.echo(_table(would), nl=False)
        click.echo(_sum(would.count, would.bytes), err=True)


def _agreed(service: "Service", request: "pb.PruneRequest") -> bool:
    """Show what the request would take, and ask; False if there is nothing to take.

    The request is then for just these jobs. Raises CliError unless the answer is yes.
    """
    try:
        would = service.would_prune(request)
    except CallFailed as error:
        # A server that cannot tell is older than this command.
        if error.code != "UNIMPLEMENTED":
            raise
        _confirm("Forget these jobs and their output for ever?")
        return True
    request.endedBy.CopyFrom(would.endedBy)
    return _shown_and_agreed(would)


def _shown_and_agreed(would: "pb.WouldPruneResponse") -> bool:
    click.echo(_table(would), nl=False, err=True)
    click.echo(_sum(would.count, would.bytes), err=True)
    if would.count:
        _confirm("Forget these jobs and their output for ever?")
    return bool(would.count)


def _table(would: "pb.WouldPruneResponse") -> str:
    """The jobs that would be forgotten, or the newest of them, a line each."""
    from jobworker.cli.display.job import jobs_text
    from jobworker.cli.display.table import terminal_width
    from jobworker.client.messages import read_job

    if not would.jobs:
        return ""
    jobs = list(map(read_job, would.jobs))
    rest = would.count - len(would.jobs)
    more = f"and {rest} older ones\n" if rest else ""
    return f"{jobs_text(jobs, datetime.now(UTC), terminal_width())}\n{more}"


def _sum(count: int, size: int) -> str:
    return f"{count} jobs, {size_text(size)} of output"


def _confirm(question: str) -> None:
    """Ask on stderr. Raises CliError unless the answer is yes."""
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort:
        # Ctrl-C, or there is nobody to ask; the answer's line has not ended.
        click.echo(err=True)
    raise CliError("nothing was removed, as nobody said yes; --force does not ask")
