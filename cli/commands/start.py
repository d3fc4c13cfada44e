"""`jobworker start`: starts a job and prints its ID."""

import os
from typing import IO, TYPE_CHECKING, Unpack

import click

from jobworker.cli.commands.new_job import (
    AS_TYPED,
    JobOptions,
    job_options,
    start_request,
    stdin_option,
    with_whole_ids,
)
from jobworker.cli.errors import CliError, failure, tell
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.restarts import warn_unless_known
from jobworker.cli.streams import CannotWrite
from jobworker.cli.uploads import warn_unless_put
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb


@click.command(context_settings=AS_TYPED)
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
    """Start a job and print its ID.

    The job runs on by itself; see `logs`, `status`, `wait` and `stop`.
    """
    request = with_whole_ids(service, start_request(job, stored=stdin is not None))
    reply = start_job(service, request)
    if stdin is not None:
        _store(service, reply.jobID, stdin)
    tell_started(service, reply, output)


@click.command()
@click.argument("job", type=JobID())
@click.option("--name", default="", help="What to call it; by default as JOB was.")
@output_option
@client_command
def again(service: "Service", *, job: str, name: str, output: OutputFormat) -> None:
    """Start once more what JOB was, and print the new job's ID.

    It has the same command, directory, environment and limits, and your rights of now.
    """
    from jobworker.proto import workerservice_pb2 as pb

    # What the job is called now may be the new one's when this is repeated.
    whole = service.status(job).jobID
    request = pb.AgainRequest(jobID=whole, requestID=os.urandom(16).hex(), name=name)
    reply = service.again(request)
    if reply.message:
        tell(f"job {reply.jobID} waits for its turn: {reply.message}")
    tell_started(service, reply, output)


def tell_started(service: "Service", reply: "pb.StartResponse", output: OutputFormat) -> None:
    """Say which job has been started."""
    told = reply.jobID
    if output == "json":
        from jobworker.cli.display.job import known_json

        told = known_json(service, reply.jobID, pid=reply.pid)
    try:
        click.echo(told)
    except CannotWrite as error:
        raise CliError(f"{error}; job {reply.jobID} has been started") from error


def _store(service: "Service", job: str, stdin: "IO[bytes]") -> None:
    from jobworker.cli.commands.send import send_all
    from jobworker.client.input import sending

    try:
        with sending(service, job) as sender:
            send_all(sender, stdin.fileno())
            sender.end()
    except ClientError as error:
        told = failure(error, service.endpoint)
        raise CliError(
            f"job {job} has been started, but not all of its input has arrived: {told}; "
            f"`jobworker send {job}` sends more, `jobworker stop {job}` ends it",
            told.exit_code,
        ) from error


def start_job(service: "Service", request: "pb.StartRequest") -> "pb.StartResponse":
    """Start a job; CliError if the server says it did not."""
    reply = service.start(request)
    if not reply.success:
        raise CliError(reply.message)
    if reply.message:
        tell(f"job {reply.jobID} waits for its turn: {reply.message}")
    warn_unless_known(service, request, reply.jobID)
    warn_unless_put(service, request, reply.jobID)
    return reply
