"""`jobworker exec`: another program in the place of a job that runs."""

from typing import TYPE_CHECKING, Unpack

import click

from jobworker.cli.commands.new_job import AS_TYPED, JobOptions, options_within, start_request
from jobworker.cli.commands.run import (
    ForegroundOptions,
    check_stdin,
    foreground_options,
    in_foreground,
)
from jobworker.cli.commands.start import tell_started
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import OutputFormat, client_command

if TYPE_CHECKING:
    from jobworker.client.connection import Service


@click.command("exec", context_settings=AS_TYPED)
@click.argument("inside", type=JobID(), metavar="JOB")
@options_within
@click.option("--detach", "-d", is_flag=True, help="Print its ID, and let it run by itself.")
@foreground_options
@click.pass_context
@client_command
def exec_in_job(
    service: "Service",
    context: click.Context,
    *,
    inside: str,
    detach: bool,
    merge: bool,
    wait_output: bool,
    detach_keys: bytes,
    output: OutputFormat,
    **job: Unpack[JobOptions],
) -> None:
    """Run a program within a job that runs, as `run` runs one on its own.

    It is a job of its own, with its own output and exit code, in that job's
    directory and with its variables, as its user, within its limits and its
    isolation. A stop of that job ends it, too. -it gives it your terminal:

        jobworker exec -it JOB bash

    Options go before JOB; what follows is the program's.
    """
    from jobworker.proto import workerservice_pb2 as pb

    words = job["words"]
    # What ends options elsewhere comes behind JOB here, for who is used to it.
    job["words"] = words[1:] if words[0] == "--" else words
    if not job["words"]:
        raise click.UsageError("Missing argument 'COMMAND [ARGUMENT]...'.", context)
    if not detach:
        check_stdin(job)
    request = pb.ExecRequest(jobID=inside, start=start_request(job))
    if detach:
        tell_started(service, service.exec(request), output)
        return
    way = ForegroundOptions(
        merge=merge, wait_output=wait_output, detach_keys=detach_keys, output=output
    )
    code = in_foreground(service, job, request.start, lambda: service.exec(request), way)
    context.exit(code)
