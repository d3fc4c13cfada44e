"""`jobworker run`: a job in the foreground, as if it were started here.

The output is read in a thread of its own. What that finds, and the signals that
arrive here, come to the main thread as events of one queue, and only the main
thread decides.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Unpack

import click

from jobworker.cli.commands.new_job import AS_TYPED, JobOptions, job_options, start_request
from jobworker.cli.commands.start import start_job
from jobworker.cli.errors import CliError, ExitCode, RequestFailed, failure, tell
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.cli.display.job import Job
    from jobworker.cli.display.sink import Sink
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb


@dataclass(frozen=True, slots=True)
class Started:
    """The server has started the job."""

    job: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, and its output has been written."""

    job: "Job"


@dataclass(frozen=True, slots=True)
class Failed:
    """The job cannot be started or followed."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Someone wants it to end: Ctrl-C, or a signal that ends programs."""


Event = Started | Ended | Failed | Interrupted
Events = SimpleQueue[Event]


@click.command(context_settings=AS_TYPED)
@job_options
@output_option
@click.pass_context
@client_command
def run(
    service: "Service", context: click.Context, output: OutputFormat, **job: Unpack[JobOptions]
) -> None:
    """Start a job, write its output, and end with its exit code.

    Ctrl-C stops the job, a second one kills it, a third leaves it alone.
    It ends with 125 if the job could not be started or followed, with 126 or
    127, as a shell does, if its program cannot be executed or is not there.
    """
    from jobworker.cli.display.job import check_known, job_json
    from jobworker.cli.display.sink import JsonSink, RawSink

    request = start_request(job)
    events: Events = SimpleQueue()
    sink = JsonSink() if output == "json" else RawSink()
    follower = threading.Thread(target=_follow, args=(service, request, sink, events), daemon=True)
    try:
        with _signals_to(events):
            follower.start()
            ended = _attend(service, events, request.requestID)
            check_known(ended)
    except CliError as error:
        raise CliError(str(error), _exit_code(error)) from error
    if output == "json":
        click.echo(job_json(ended))
    context.exit(ended.exit_code or 0)


def _exit_code(error: CliError) -> ExitCode:
    """Return what a shell, or docker run, ends with for such a failure."""
    match error:
        case RequestFailed(errno="ENOENT"):
            return ExitCode.NO_SUCH_PROGRAM
        case RequestFailed(errno=errno) if errno:
            return ExitCode.CANNOT_EXECUTE
    return ExitCode.RUN_FAILED


def _follow(service: "Service", request: "pb.StartRequest", sink: "Sink", events: Events) -> None:
    """Start a job and write its output to the end; tell `events` how that goes."""
    from jobworker.cli.display.job import read_job
    from jobworker.client.follow import read_output, wait_for_end
    from jobworker.proto import workerservice_pb2 as pb

    try:
        job = start_job(service, request).jobID
        events.put(Started(job))
        for piece in read_output(service, pb.GetOutputRequest(jobID=job, raw=True)):
            sink.write(piece)
        events.put(Ended(read_job(wait_for_end(service, pb.WaitRequest(jobID=job)))))
    except ClientError as error:
        events.put(Failed(failure(error, service.endpoint)))
    except Exception as error:  # noqa: BLE001 - the main thread raises it
        events.put(Failed(error))


@contextmanager
def _signals_to(events: Events) -> Iterator[None]:
    """Turn the signals that would end this process into events."""

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        # SimpleQueue.put is reentrant: the docs allow it in a signal handler.
        events.put(Interrupted())

    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What was ignored when this process started stays so, as under nohup(1).
    before = {
        number: signal.signal(number, interrupted)
        for number in ending
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attend(service: "Service", events: Events, request_id: str) -> "Job":
    """Carry out what the events ask for, until the job has ended.

    Raises:
        CliError: The job failed to start or to be followed, or is left alone.
        BrokenPipeError: Nobody reads the output any more. The job is told to stop.
    """
    job: str | None = None
    interrupts = 0
    while True:
        match events.get():
            case Ended(ended):
                return ended
            case Failed(BrokenPipeError() as error):
                if job is not None:
                    _stop(service, job, kill=False)
                raise error
            case Failed(error):
                raise error
            case Started(started):
                job = started
            case Interrupted():
                interrupts += 1
                if interrupts > 2 or (interrupts > 1 and job is None):
                    where = f"job {job}" if job else f"the job of request {request_id}, if any,"
                    raise CliError(f"interrupted; {where} is left as it is")
        if interrupts and job is not None:
            kill = interrupts > 1
            tell(f"killing job {job}" if kill else f"stopping job {job}; Ctrl-C again kills it")
            # In a thread, so that a server that does not answer cannot keep the
            # next Ctrl-C waiting.
            threading.Thread(
                target=_stop, args=(service, job), kwargs={"kill": kill}, daemon=True
            ).start()


def _stop(service: "Service", job: str, *, kill: bool) -> None:
    """Tell the server to end a job; a failure is told, no more."""
    from jobworker.proto import workerservice_pb2 as pb

    try:
        service.stop(pb.StopRequest(jobID=job, graceSeconds=0 if kill else None, noWait=True))
    except ClientError as error:
        tell(str(failure(error, service.endpoint)))
