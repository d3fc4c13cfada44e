"""`jobworker admin`: what root on the server's host may always do, whatever the policy says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import printable
from jobworker.cli.host.offboard import offboard
from jobworker.cli.host.replies import replies_of
from jobworker.cli.host.serve import config_option
from jobworker.cli.options import OutputFormat, output_option, say_json
from jobworker.cli.quantities import Seconds, size_text
from jobworker.cli.selection import OWNER, TENANT
from jobworker.cli.suggestions import SuggestingGroup

if TYPE_CHECKING:
    from jobworker.proto import admin_pb2


@click.group(cls=SuggestingGroup)
def admin() -> None:
    """On the server's host: anybody's jobs, draining, usage, and users who leave.

    For root, and the user who started the server. No certificate is needed, and the
    policy is not asked; the audit log has it all.
    """


@admin.command("list")
@click.option("--running", "-r", is_flag=True, help="Only jobs that have not ended.")
@OWNER
@TENANT
@click.option(
    "--limit", "-n", type=click.IntRange(0, 2**31), default=0, help="At most so many; 0 for all."
)
@config_option
@output_option
def list_jobs(
    *, running: bool, owner: str, tenant: str, limit: int, config: Path, output: OutputFormat
) -> None:
    """List everybody's jobs, newest first."""
    from jobworker.cli.display.job import job_json, jobs_text
    from jobworker.cli.display.table import terminal_width
    from jobworker.client.messages import read_job
    from jobworker.proto import admin_pb2

    asked = admin_pb2.List(running=running, owner=owner, tenant=tenant, limit=limit)
    with replies_of(config, admin_pb2.Request(list=asked)) as replies:
        jobs = [read_job(reply.job) for reply in replies]
    if output == "json":
        click.echo("".join(f"{job_json(job)}\n" for job in jobs), nl=False)
    else:
        click.echo(jobs_text(jobs, datetime.now(UTC), terminal_width()))


@admin.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--owner", default="", help="Every job of this user that has not ended.")
@click.option("--tenant", default="", help="Every job of this tenant that has not ended.")
@click.option(
    "--grace",
    type=Seconds(),
    metavar="TIME",
    help="Time between SIGTERM and SIGKILL in place of each job's own; 0 kills at once.",
)
@config_option
@output_option
def stop(
    *,
    jobs: tuple[str, ...],
    owner: str,
    tenant: str,
    grace: float | None,
    config: Path,
    output: OutputFormat,
) -> None:
    """End jobs, whoever's they are, all at once, and print each ID when it has ended.

    \b
    jobworker admin stop --owner bob
    jobworker admin stop --tenant team-a --grace 0

    With both --owner and --tenant, those that are of both.
    """
    from jobworker.cli.display.job import job_json
    from jobworker.client.messages import read_job
    from jobworker.proto import admin_pb2

    if not (jobs or owner or tenant):
        raise click.UsageError("say which jobs: JOB, --owner or --tenant")
    asked = admin_pb2.Stop(jobs=jobs, owner=owner, tenant=tenant, grace_seconds=grace)
    with replies_of(config, admin_pb2.Request(stop=asked)) as replies:
        for reply in replies:
            job = read_job(reply.job)
            click.echo(job_json(job) if output == "json" else job.id)


@admin.command()
@click.argument("words", required=False)
@click.option("--off", is_flag=True, help="Start jobs again.")
@config_option
@output_option
def drain(*, words: str | None, off: bool, config: Path, output: OutputFormat) -> None:
    """Start no new jobs, and tell whoever asks WORDS; without any, say how it is now.

    \b
    jobworker admin drain "the disk is replaced, until 18:00"
    jobworker admin drain --off

    Jobs that run go on. It holds over restarts of the server.
    """
    from jobworker.proto import admin_pb2

    if words is not None and off:
        raise click.UsageError("--off takes no words")
    asked = admin_pb2.Drain(words=words or "")
    if words is not None or off:
        asked.drained = not off
    with replies_of(config, admin_pb2.Request(drain=asked)) as replies:
        told = next(replies).drain
        # Up to the end, which tells whether it was done.
        list(replies)
    if output == "json":
        say_json({"drained": told.drained, "words": told.words})
    elif told.drained:
        click.echo(f"no new jobs are started: {printable(told.words)}")
    else:
        click.echo("jobs are started")


@admin.command()
@config_option
@output_option
def usage(*, config: Path, output: OutputFormat) -> None:
    """Show what each tenant's jobs use now, and what their output takes on the disk."""
    from jobworker.cli.display.table import table_text, terminal_width
    from jobworker.client.messages import told
    from jobworker.proto import admin_pb2

    with replies_of(config, admin_pb2.Request(usage=admin_pb2.Usage())) as replies:
        found = [reply.usage for reply in replies]
    if output == "json":
        for one in found:
            say_json(told(one))
        return
    click.echo(table_text([_HEADS, *map(_cells, found)], terminal_width()))


_HEADS = ("TENANT", "JOBS", "RUNNING", "PROCESSES", "CPU", "MEMORY", "OUTPUT", "DISK")


def _cells(one: "admin_pb2.TenantUsage") -> tuple[str, ...]:
    counts = (str(one.jobs), str(one.running), str(one.processes), f"{one.cpu_seconds:.1f}s")
    sizes = map(size_text, (one.memory_bytes, one.output_bytes, one.disk_bytes))
    return (one.tenant or "-", *counts, *sizes)


admin.add_command(offboard)
