"""`jobworker stop` and `jobworker signal`: ends jobs, or sends them signals."""

import re
import signal
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError
from jobworker.cli.job_ids import JobID
from jobworker.cli.options import OutputFormat, client_command, output_option, say_done
from jobworker.cli.quantities import Seconds

if TYPE_CHECKING:
    from jobworker.client.connection import Service


@click.command()
@click.argument("jobs", type=JobID(), metavar="JOB...", nargs=-1, required=True)
@click.option(
    "--grace",
    type=Seconds(),
    metavar="TIME",
    help="Time between SIGTERM and SIGKILL in place of the job's own; 0 kills at once.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
@output_option
@client_command
def stop(
    service: "Service",
    jobs: tuple[str, ...],
    *,
    grace: float | None,
    no_wait: bool,
    output: OutputFormat,
) -> None:
    """End jobs with everything they started, and print each ID when done.

    SIGTERM to all its processes, a grace period, then SIGKILL.
    """
    from jobworker.cli.commands.each import for_each
    from jobworker.proto import workerservice_pb2 as pb

    def end(job: str) -> None:
        reply = service.stop(pb.StopRequest(jobID=job, graceSeconds=grace, noWait=no_wait))
        if not reply.success:
            raise CliError(reply.message)
        say_done(job, output)

    for_each(service, jobs, end)


class SignalNumber(click.ParamType[int]):
    """A signal: HUP, SIGHUP or 1. Its value is the number."""

    name = "signal"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; what is no signal here is a usage error."""
        text = str(value).upper()
        if re.fullmatch("[0-9]{1,2}", text) and 1 <= int(text) <= signal.NSIG - 1:
            return int(text)
        name = text if text.startswith("SIG") else f"SIG{text}"
        if name not in signal.Signals.__members__:
            self.fail(f"{value!r} is no signal; `kill -l` lists them", param, ctx)
        return signal.Signals[name].value


@click.command("signal")
@click.argument("number", metavar="SIGNAL", type=SignalNumber())
@click.argument("jobs", type=JobID(), metavar="JOB...", nargs=-1, required=True)
@output_option
@client_command
def signal_job(
    service: "Service", number: int, jobs: tuple[str, ...], output: OutputFormat
) -> None:
    """Send SIGNAL (HUP, SIGUSR1, 10, ...) to the main process of jobs, and print each ID."""
    from jobworker.cli.commands.each import for_each
    from jobworker.proto import workerservice_pb2 as pb

    def send(job: str) -> None:
        service.signal(pb.SignalRequest(jobID=job, signal=number))
        say_done(job, output)

    for_each(service, jobs, send)
