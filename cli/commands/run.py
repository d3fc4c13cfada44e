"""`jobworker run`: a job in the foreground, as if it were started here.

The output is read in a thread of its own. What that finds, and the signals that
arrive here, come to the main thread as events of one queue, and only the main
thread decides.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Never, Unpack

import click

from jobworker.cli.commands.new_job import AS_TYPED, JobOptions, job_options, start_request
from jobworker.cli.commands.start import start_job
from jobworker.cli.errors import CliError, CutOff, ExitCode, RequestFailed, failure, tell
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.streams import CannotWrite
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
@click.option("--merge", is_flag=True, help="What comes on stderr to stdout, too.")
@click.option(
    "--wait-output",
    is_flag=True,
    help="Wait for what it leaves behind, too, as long as that can write.",
)
@output_option
@click.pass_context
@client_command
def run(
    service: "Service",
    context: click.Context,
    *,
    merge: bool,
    wait_output: bool,
    output: OutputFormat,
    **job: Unpack[JobOptions],
) -> None:
    """Start a job, write its output, and end with its exit code.

    What comes on stdout goes to stdout, and stderr to stderr. It ends when the
    job has ended and what that wrote is written.

    Ctrl-C stops the job, a second one kills it, a third leaves it alone.
    It ends with 125 if the job could not be started or followed, with 126 or
    127, as a shell does, if its program cannot be executed or is not there, and
    with 4 if your certificate ends meanwhile: then the job goes on.
    """
    from jobworker.cli.display.job import check_known, job_json
    from jobworker.cli.display.sink import JsonSink, RawSink
    from jobworker.proto import workerservice_pb2 as pb

    as_json = output == "json"
    events: Events = SimpleQueue()
    attended = _Attended(
        service,
        start_request(job),
        pb.GetOutputRequest(
            raw=True, streams=as_json or not merge, detail=as_json, untilExit=not wait_output
        ),
        lambda job: JsonSink({"job": job}) if as_json else RawSink(merge),
        events,
    )
    try:
        with _signals_to(events):
            threading.Thread(target=attended.follow, daemon=True).start()
            ended = attended.attend()
            check_known(ended)
    except CliError as error:
        raise CliError(str(error), _exit_code(error)) from error
    if not ended.output_complete:
        tell(
            f"job {ended.id} has ended, but its output goes on: what it started keeps that open; "
            f"`jobworker logs -f {ended.id}` shows it, `jobworker stop {ended.id}` ends it"
        )
    if as_json:
        click.echo(job_json(ended))
    context.exit(ended.exit_code or 0)


def _exit_code(error: CliError) -> ExitCode:
    """Return what a shell, or docker run, ends with for such a failure."""
    match error:
        case RequestFailed(errno="ENOENT"):
            return ExitCode.NO_SUCH_PROGRAM
        case RequestFailed(errno=errno) if errno:
            return ExitCode.CANNOT_EXECUTE
        case CutOff():
            return ExitCode.REFUSED
    return ExitCode.RUN_FAILED


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


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an interrupt does: the grace that the job is stopped with, and what is told of it."""

    grace: float | None
    told: str


# To the first, and to the second; the third leaves the job alone.
_ANSWERS = (
    _Answer(None, "stopping job {job}; Ctrl-C again kills it"),
    _Answer(0, "killing job {job}"),
)


class _Attended:
    """A job that is run in the foreground: `follow` in one thread, `attend` in the main one."""

    def __init__(
        self,
        service: "Service",
        request: "pb.StartRequest",
        wanted: "pb.GetOutputRequest",
        sink_of: "Callable[[str], Sink]",
        events: Events,
    ) -> None:
        """`wanted` says how to ask for the output; the job comes into it when it is known."""
        self._service = service
        self._request = request
        self._wanted = wanted
        self._sink_of = sink_of
        self._events = events
        self._job: str | None = None
        self._interrupts = 0

    def follow(self) -> None:
        """Start the job and write its output to the end; tell the events how that goes."""
        from jobworker.cli.display.job import read_job
        from jobworker.client.follow import read_output, wait_for_end
        from jobworker.proto import workerservice_pb2 as pb

        try:
            job = start_job(self._service, self._request).jobID
            self._events.put(Started(job))
            self._wanted.jobID = job
            sink = self._sink_of(job)
            for piece in read_output(self._service, self._wanted):
                sink.write(piece)
            ended = wait_for_end(self._service, pb.WaitRequest(jobID=job))
            self._events.put(Ended(read_job(ended)))
        except ClientError as error:
            self._events.put(Failed(failure(error, self._service.endpoint)))
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self._events.put(Failed(error))

    def attend(self) -> "Job":
        """Carry out what the events ask for, until the job has ended.

        Raises:
            CliError: The job failed to start or to be followed, or is left alone.
            BrokenPipeError: Nobody reads the output any more. The job is told to stop.
        """
        while True:
            match self._events.get():
                case Ended(ended):
                    return ended
                case Failed(error):
                    self._fail(error)
                case Started(job):
                    self._job = job
                    if self._interrupts:
                        self._answer()
                case Interrupted():
                    self._interrupts += 1
                    self._answer()

    def _fail(self, error: Exception) -> Never:
        if isinstance(error, BrokenPipeError) and self._job is not None:
            self._stop(None)
        if isinstance(error, CannotWrite):
            raise CliError(f"{error}; job {self._job} goes on") from error
        raise error

    def _answer(self) -> None:
        """Do what so many interrupts ask for, as soon as there is a job."""
        if self._job is None and self._interrupts > 1:
            key = self._request.requestID
            raise CliError(f"interrupted; the job of request {key}, if any, is left as it is")
        if self._interrupts > len(_ANSWERS):
            raise CliError(f"interrupted; job {self._job} is left as it is")
        if self._job is not None:
            answer = _ANSWERS[self._interrupts - 1]
            tell(answer.told.format(job=self._job))
            # In a thread, so that a server that does not answer cannot keep the
            # next Ctrl-C waiting.
            threading.Thread(target=self._stop, args=(answer.grace,), daemon=True).start()

    def _stop(self, grace: float | None) -> None:
        """Tell the server to end the job; a failure is told, no more."""
        from jobworker.proto import workerservice_pb2 as pb

        try:
            self._service.stop(pb.StopRequest(jobID=self._job, graceSeconds=grace, noWait=True))
        except ClientError as error:
            tell(str(failure(error, self._service.endpoint)))
