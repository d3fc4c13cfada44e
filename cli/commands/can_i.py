"""`jobworker can-i`: what one may do, without doing it."""

from typing import IO, TYPE_CHECKING, Unpack

import click

from jobworker.cli.commands.new_job import (
    AS_TYPED,
    JobOptions,
    job_options,
    start_request,
    stdin_option,
)
from jobworker.cli.errors import ExitCode, printable_lines
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import (
    OutputFormat,
    client_command,
    connection_options,
    output_option,
    say_json,
)

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

_ON_JOBS = (
    *("stop", "signal", "status", "output", "list"),
    *("attach", "forward", "put", "get", "audit", "renew"),
)


@click.group("can-i", invoke_without_command=True, subcommand_metavar="ACTION ...")
@click.option("--list", "listed", is_flag=True, help="Show all that you may do.")
@click.option("--tenant", default="", help="For start: the tenant, one of your certificate's.")
@output_option
@connection_options
@click.pass_context
def can_i(context: click.Context, *, listed: bool, tenant: str, output: OutputFormat) -> None:
    """Ask whether you may do ACTION; nothing is done. Exits with 0 if so, with 1 if not.

    \b
    jobworker can-i start --memory 2G -- /usr/bin/python3 x.py
    jobworker can-i stop 0199e3c2
    jobworker can-i --list

    The answer to `start` is the server's to the same `jobworker start` now:
    policy, quotas, limits and isolation. Whether the program is there is not asked.
    """
    if context.invoked_subcommand is None:
        if not listed:
            raise click.UsageError("say what you would do, or --list", context)
        _list(output=output)
    elif listed:
        raise click.UsageError("--list is asked by itself, without an action", context)
    elif tenant and context.invoked_subcommand != "start":
        raise click.UsageError("--tenant is for start alone", context)
    # What stands before the action holds unless it stands after it, too.
    before = {"output": output, "tenant": tenant}
    context.default_map = dict.fromkeys(can_i.commands, before)


@can_i.command(context_settings=AS_TYPED)
@job_options
@stdin_option
@output_option
@client_command
def start(
    service: "Service",
    output: OutputFormat,
    stdin: "IO[bytes] | None",
    **job: Unpack[JobOptions],
) -> None:
    """Ask whether `jobworker start` with these options would start a job now."""
    from jobworker.proto import workerservice_pb2 as pb

    asked = start_request(job, stored=stdin is not None)
    _answer(service, pb.CanIRequest(action="start", start=asked), output)


def _about_a_job(action: str) -> click.Command:
    @click.command(action, help=f"Ask whether you may do `{action}` to JOB.")
    @click.argument("job", type=JobID())
    @output_option
    @client_command
    def ask(service: "Service", job: str, output: OutputFormat) -> None:
        from jobworker.proto import workerservice_pb2 as pb

        _answer(service, pb.CanIRequest(action=action, jobID=job), output)

    return ask


for _action in _ON_JOBS:
    can_i.add_command(_about_a_job(_action))


def _answer(service: "Service", question: "pb.CanIRequest", output: OutputFormat) -> None:
    answer = service.can_i(question)
    if output == "json":
        say_json({"allowed": answer.allowed, "reason": answer.reason})
    else:
        click.echo(f"{'yes' if answer.allowed else 'no'}: {printable_lines(answer.reason)}")
    if not answer.allowed:
        raise click.exceptions.Exit(ExitCode.FAILED)


@client_command
def _list(service: "Service", output: OutputFormat) -> None:
    from jobworker.cli.display.rights import rights_json, rights_text

    answer = service.rights()
    click.echo(rights_json(answer) if output == "json" else rights_text(answer))
