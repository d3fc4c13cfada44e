"""`jobworker can-i`: whether one has the right to do something, without doing it."""

import json
from typing import TYPE_CHECKING

import click

from jobworker.cli.commands.new_job import AS_TYPED
from jobworker.cli.errors import ExitCode, printable
from jobworker.cli.options import OutputFormat, client_command, output_option

if TYPE_CHECKING:
    from jobworker.client.connection import Service

_ON_JOBS = ("stop", "signal", "status", "output", "list")


@click.command("can-i", context_settings=AS_TYPED)
@click.argument("action", type=click.Choice(["start", *_ON_JOBS]))
@click.argument("words", metavar="JOB | COMMAND [ARGUMENT]...", nargs=-1, required=True)
@click.option("--tenant", default="", help="For start: the tenant, one of your certificate's.")
@output_option
@client_command
def can_i(
    service: "Service", action: str, words: tuple[str, ...], tenant: str, output: OutputFormat
) -> None:
    """Ask whether you may do ACTION; nothing is done. Exits with 0 if so, with 1 if not.

    \b
    jobworker can-i start -- /usr/bin/python3 x.py
    jobworker can-i stop 0199e3c2

    It is about rights: a start that is allowed may still exceed a quota.
    """
    from jobworker.proto import workerservice_pb2 as pb

    # Options end at ACTION already, so that a program's own are left to it.
    words = words[1:] if words[0] == "--" else words
    if not words:
        raise click.UsageError(f"say what you would {action}")
    if action == "start":
        start = pb.StartRequest(commandName=words[0], Arguments=words[1:], tenant=tenant)
        request = pb.CanIRequest(action=action, start=start)
    else:
        if len(words) > 1 or tenant:
            raise click.UsageError(f"{action} is asked of one JOB, and of nothing else")
        request = pb.CanIRequest(action=action, jobID=words[0])
    answer = service.can_i(request)
    if output == "json":
        click.echo(json.dumps({"allowed": answer.allowed, "reason": answer.reason}))
    else:
        click.echo(f"{'yes' if answer.allowed else 'no'}: {printable(answer.reason)}")
    if not answer.allowed:
        raise click.exceptions.Exit(ExitCode.FAILED)
