"""`jobworker wait`: waits for jobs, and ends as they did."""

import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, ExitCode, failure, tell
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.quantities import Seconds
from jobworker.cli.selection import GOING_ON, choosing_jobs
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb


@click.command()
@click.option("--any", "first", is_flag=True, help="Only for the first to end; print its ID.")
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="TIME",
    help="Wait no longer than that, such as 30s or 5m; then end with 124.",
)
@output_option
@client_command
@choosing_jobs(*GOING_ON, labelled=True)
def wait(
    service: "Service",
    *,
    jobs: tuple[str, ...],
    first: bool,
    timeout: float | None,
    output: OutputFormat,
) -> None:
    """Wait for jobs to end, and print the exit code of each, in the order given.

    With one JOB, or --any, it ends with that job's own code, with 125 if nobody
    knows it: the job is lost, is not there, or the server cannot be asked.
    With several it ends with 1 if any of them failed or was lost.
    """
    of_one = first or len(jobs) == 1
    try:
        # A misspelt one is told before anything is waited for; and a prefix that is
        # unique now may not be when the connection breaks.
        known = [service.status(job) for job in jobs]
        ends = _ends(service, known, timeout)
        code = _tell_first(ends, output, first) if of_one else _tell_all(service, ends, output)
    except ClientError as error:
        told = failure(error, service.endpoint)
        raise CliError(str(told), ExitCode.RUN_FAILED if of_one else told.exit_code) from error
    raise click.exceptions.Exit(code)


# A job's place among those asked for, and how it ended or why that cannot be told.
_End = tuple[int, "JobStatus | ClientError"]


def _ends(
    service: "Service", known: "list[pb.QueryStatusResponse]", timeout: float | None
) -> Iterator[_End]:
    """Yield the ends of jobs as they come. Raises CliError when time is over before the last."""
    from jobworker.client.messages import read_job

    events: SimpleQueue[_End] = SimpleQueue()
    deadline = None if timeout is None else monotonic() + timeout
    running = {}
    for place, status in enumerate(known):
        job = read_job(status)
        if job.ended:
            events.put((place, job))
        else:
            running[place] = job.id
    for place, job_id in running.items():
        threading.Thread(target=_await, args=(service, place, job_id, events), daemon=True).start()
    for _ in known:
        left = None if deadline is None else max(0, deadline - monotonic())
        try:
            place, end = events.get(timeout=left)
        except Empty:
            jobs = " ".join(running.values())
            raise CliError(
                f"after {timeout:g} s still running: {jobs}", ExitCode.TIMED_OUT
            ) from None
        running.pop(place, None)
        yield place, end


def _await(service: "Service", place: int, job_id: str, events: "SimpleQueue[_End]") -> None:
    from jobworker.client.follow import wait_for_end
    from jobworker.client.messages import read_job
    from jobworker.proto import workerservice_pb2 as pb

    try:
        events.put((place, read_job(wait_for_end(service, pb.WaitRequest(jobID=job_id)))))
    except ClientError as error:
        events.put((place, error))


def _tell_first(ends: Iterator[_End], output: OutputFormat, name: bool) -> int:
    """Tell of the first job to end; return its code. Raises ClientError."""
    _, end = next(ends)
    if isinstance(end, ClientError):
        raise end
    _tell_end(end, output, name=name)
    return ExitCode.RUN_FAILED if end.exit_code is None else end.exit_code


def _tell_all(service: "Service", ends: Iterator[_End], output: OutputFormat) -> int:
    """Tell of all jobs in the order they were asked for; return 0 if all went well."""
    codes: list[int] = []
    untold: dict[int, JobStatus | ClientError] = {}
    for place, end in ends:
        untold[place] = end
        while (told := untold.pop(len(codes), None)) is not None:
            if isinstance(told, ClientError):
                problem = failure(told, service.endpoint)
                tell(str(problem), problem.exit_code)
                codes.append(problem.exit_code)
            else:
                _tell_end(told, output)
                codes.append(0 if told.exit_code == 0 else ExitCode.FAILED)
    return ExitCode.FAILED if ExitCode.FAILED in codes else next(filter(None, codes), 0)


def _tell_end(job: "JobStatus", output: OutputFormat, *, name: bool = False) -> None:
    from jobworker.cli.display.job import job_json, loss

    if lost := loss(job):
        tell(lost)
    if output == "json":
        click.echo(job_json(job))
    elif name:
        click.echo(job.id)
    else:
        click.echo("lost" if lost else str(job.exit_code))
