"""`jobworker stop`, `signal`, `pause` and `resume`: ends jobs, signals them, has them wait."""

from typing import TYPE_CHECKING

import click

from jobworker.cli.commands.new_job import stop_mode_name, stop_options
from jobworker.cli.errors import CliError
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.quantities import Seconds
from jobworker.cli.selection import GOING_ON, choosing_jobs
from jobworker.cli.signals import SignalNumber

if TYPE_CHECKING:
    from jobworker.client.connection import Service


@click.command()
@click.option(
    "--grace",
    type=Seconds(),
    metavar="TIME",
    help="Time between SIGTERM and SIGKILL in place of the job's own; 0 kills at once.",
)
@stop_options
@click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
@output_option
@client_command
@choosing_jobs(*GOING_ON)
def stop(
    service: "Service",
    *,
    jobs: tuple[str, ...],
    grace: float | None,
    stop_signal: int | None,
    stop_mode: str | None,
    no_wait: bool,
    output: OutputFormat,
) -> None:
    """End jobs with everything they started, all at once, and print each ID when done.

    A signal (SIGTERM) to all processes of each, a grace period, then SIGKILL.
    """
    from jobworker.cli.commands.each import for_all_at_once
    from jobworker.proto import workerservice_pb2 as pb

    def end(job: str) -> None:
        request = pb.StopRequest(
            jobID=job,
            graceSeconds=grace,
            noWait=no_wait,
            stopSignal=stop_signal,
            stopMode=getattr(pb, stop_mode_name(stop_mode)),
        )
        reply = service.stop(request)
        if not reply.success:
            raise CliError(reply.message)
        _tell_done(service, job, output, request.jobID)

    for_all_at_once(service, jobs, end)


@click.command("signal")
@click.argument("number", metavar="SIGNAL", type=SignalNumber())
@click.option("--all", "to_all", is_flag=True, help="To every process of each job.")
@output_option
@client_command
@choosing_jobs(*GOING_ON)
def signal_job(
    service: "Service", *, number: int, jobs: tuple[str, ...], to_all: bool, output: OutputFormat
) -> None:
    """Send SIGNAL (HUP, SIGUSR1, 10, ...) to the main process of jobs, and print each ID."""
    from jobworker.cli.commands.each import for_each
    from jobworker.proto import workerservice_pb2 as pb

    def send(job: str) -> None:
        service.signal(pb.SignalRequest(jobID=job, signal=number, all=to_all))
        _tell_done(service, job, output)

    for_each(service, jobs, send)


@click.command()
@output_option
@client_command
@choosing_jobs(*GOING_ON)
def pause(service: "Service", *, jobs: tuple[str, ...], output: OutputFormat) -> None:
    """Have jobs with everything they started stand still, and print each ID.

    They keep their memory, and a timeout goes on. `resume` has them go on, `stop` ends them.
    """
    from jobworker.cli.commands.each import for_all_at_once

    def hold(job: str) -> None:
        service.pause(job)
        _tell_done(service, job, output)

    for_all_at_once(service, jobs, hold)


@click.command()
@output_option
@client_command
@choosing_jobs(*GOING_ON)
def resume(service: "Service", *, jobs: tuple[str, ...], output: OutputFormat) -> None:
    """Have paused jobs go on, and print each ID."""
    from jobworker.cli.commands.each import for_all_at_once

    def release(job: str) -> None:
        service.resume(job)
        _tell_done(service, job, output)

    for_all_at_once(service, jobs, release)


def _tell_done(service: "Service", job: str, output: OutputFormat, job_id: str = "") -> None:
    """Print what a job was given by, or all that is known of it now, by its ID if that is."""
    from jobworker.cli.display.job import known_json

    click.echo(known_json(service, job_id or job) if output == "json" else job)
