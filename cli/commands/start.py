"""`jobworker start`: starts a job and prints its ID."""

from typing import TYPE_CHECKING, Unpack

import click

from jobworker.cli.commands.new_job import AS_TYPED, JobOptions, job_options, start_request
from jobworker.cli.errors import CliError
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.streams import CannotWrite

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb


@click.command(context_settings=AS_TYPED)
@job_options
@output_option
@client_command
def start(service: "Service", output: OutputFormat, **job: Unpack[JobOptions]) -> None:
    """Start a job and print its ID.

    The job runs on by itself; see `logs`, `status`, `wait` and `stop`.
    """
    reply = start_job(service, start_request(job))
    told = reply.jobID
    if output == "json":
        from jobworker.cli.display.job import known_json

        told = known_json(service, reply.jobID, pid=reply.pid)
    try:
        click.echo(told)
    except CannotWrite as error:
        raise CliError(f"{error}; job {reply.jobID} has been started") from error


def start_job(service: "Service", request: "pb.StartRequest") -> "pb.StartResponse":
    """Start a job; CliError if the server says it did not."""
    reply = service.start(request)
    if not reply.success:
        raise CliError(reply.message)
    return reply
