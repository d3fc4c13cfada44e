"""`jobworker run`: a job in the foreground, as if it were started here."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Never, TypedDict, Unpack

import click

from jobworker.cli.commands.foreground import (
    CannotType,
    Ended,
    Events,
    Failed,
    Interrupted,
    Left,
    Resized,
    Started,
    Typing,
    attending,
    follow_in_thread,
    signals_to,
)
from jobworker.cli.commands.new_job import (
    AS_TYPED,
    Command,
    JobOptions,
    job_options,
    start_request,
    with_whole_ids,
)
from jobworker.cli.commands.start import start_job
from jobworker.cli.errors import CliError, CutOff, ExitCode, RequestFailed, failure, tell
from jobworker.cli.keyboard import detach_keys_option, has_something, is_terminal
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.streams import CannotWrite
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.input import InputSender
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb


class ForegroundOptions(TypedDict):
    """The values of `foreground_options`."""

    merge: bool
    wait_output: bool
    detach_keys: bytes
    output: OutputFormat


def foreground_options(command: Command) -> Command:
    """Add what a job in the foreground takes; passed on as the items of ForegroundOptions."""
    for option in reversed(_FOREGROUND):
        command = option(command)
    return command


_FOREGROUND = (
    click.option("--merge", is_flag=True, help="What comes on stderr to stdout, too."),
    click.option(
        "--wait-output",
        is_flag=True,
        help="Wait for what it leaves behind, too, as long as that can write.",
    ),
    detach_keys_option,
    output_option,
)


@click.command(context_settings=AS_TYPED)
@job_options
@foreground_options
@click.pass_context
@client_command
def run(
    service: "Service",
    context: click.Context,
    *,
    merge: bool,
    wait_output: bool,
    detach_keys: bytes,
    output: OutputFormat,
    **job: Unpack[JobOptions],
) -> None:
    """Start a job, write its output, and end with its exit code.

    What comes on stdout goes to stdout, and stderr to stderr. It ends when the
    job has ended and what that wrote is written.

    With -i your stdin is the job's, without it nothing is read. With -it the job
    runs on a terminal that is yours until you leave it (see --detach-keys);
    every key is the job's then, Ctrl-C too.

    Else Ctrl-C stops the job, a second one kills it, a third leaves it alone.
    It ends with 125 if the job could not be started or followed, with 126 or
    127, as a shell does, if its program cannot be executed or is not there, and
    with 4 if your certificate ends meanwhile: then the job goes on.
    """
    check_stdin(job)
    request = with_whole_ids(service, start_request(job))
    way = ForegroundOptions(
        merge=merge, wait_output=wait_output, detach_keys=detach_keys, output=output
    )
    code = in_foreground(service, job, request, lambda: start_job(service, request), way)
    context.exit(code)


def in_foreground(
    service: "Service",
    job: JobOptions,
    request: "pb.StartRequest",
    begin: "Callable[[], pb.StartResponse]",
    way: ForegroundOptions,
) -> int:
    """Have a job begin by the request, attend to it to its end, and return what to end with.

    That is 0 where the user has left it.
    """
    from jobworker.cli.display.job import check_known, job_json, never_begun
    from jobworker.cli.display.sink import JsonSink, RawSink
    from jobworker.proto import workerservice_pb2 as pb

    as_json = way["output"] == "json"
    merge = way["merge"]
    events: Events = SimpleQueue()
    follow_in_thread(
        service,
        events,
        lambda: begin().jobID,
        pb.GetOutputRequest(
            raw=True, streams=as_json or not merge, detail=as_json, untilExit=not way["wait_output"]
        ),
        lambda job: JsonSink({"job": job}) if as_json else RawSink(merge),
    )
    typing = None
    attends = job["on_disconnect"] not in (None, "keep") and not job["interactive"]
    if job["interactive"]:
        typing = Typing(service, events, terminal=job["tty"], keys=way["detach_keys"])
    try:
        with signals_to(events):
            attended = _Attended(service, request.requestID, typing, events, attends=attends)
            ended = attended.attend()
            if ended is None:
                return 0
            check_known(ended)
    except CliError as error:
        raise CliError(str(error), _exit_code(error)) from error
    if never := never_begun(ended):
        tell(
            f"job {ended.id} {never}: {ended.detail}" if ended.detail else f"job {ended.id} {never}"
        )
    if not ended.output_complete:
        tell(
            f"job {ended.id} has ended, but its output goes on: what it started keeps that open; "
            f"`jobworker logs -f {ended.id}` shows it, `jobworker stop {ended.id}` ends it"
        )
    if as_json:
        click.echo(job_json(ended))
    return ended.exit_code or 0


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


def check_stdin(job: JobOptions) -> None:
    """Look at what stdin is, and tell what that means; a terminal needs one here."""
    if not job["interactive"]:
        if has_something():
            tell("what is on stdin is not passed on to the job; -i does that")
    elif job["tty"] and not is_terminal():
        tell("the job runs on no terminal, as stdin is none that passes on every key")
        job["tty"] = False


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
    """A job that is followed in a thread, and decided about in the main one."""

    def __init__(
        self,
        service: "Service",
        key: str,
        typing: Typing | None,
        events: Events,
        *,
        attends: bool,
    ) -> None:
        """`key` is the request's. A job that it `attends` to does not go on without it."""
        self._service = service
        self._key = key
        self._typing = typing
        self._events = events
        self._job: str | None = None
        self._interrupts = 0
        self._attends = attends
        self._stack = ExitStack()
        self._attendance: InputSender | None = None

    def attend(self) -> "JobStatus | None":
        """Carry out what the events ask for, until the job has ended, or the user has left (None).

        Raises:
            CliError: The job failed to start or to be followed, or is left alone.
            BrokenPipeError: Nobody reads the output any more. The job is told to stop.
        """
        try:
            return self._attend()
        finally:
            if self._typing is not None:
                self._typing.end()
            self._stack.close()

    def _attend(self) -> "JobStatus | None":
        while True:
            match self._events.get():
                case Ended(ended):
                    return ended
                case Failed(error):
                    self._fail(error)
                case Started(job):
                    self._started(job)
                case Interrupted():
                    self._interrupts += 1
                    self._answer()
                case Left():
                    self._leave("left")
                    return None
                case Resized() if self._typing is not None:
                    self._typing.resized()
                case CannotType(error):
                    if self._typing is not None:
                        self._typing.end()
                    tell(f"what you type is lost: {failure(error, self._service.endpoint)}")

    def _started(self, job: str) -> None:
        self._job = job
        if self._interrupts:
            self._answer()
        if self._typing is not None:
            self._typing.begin(job)
        if self._attends:
            self._attendance = self._stack.enter_context(attending(self._service, job))

    def _leave(self, how: str) -> None:
        if self._typing is not None:
            self._typing.end()
        tell(f"{how}: job {self._job} goes on; `jobworker attach {self._job}` comes back to it")

    def _fail(self, error: Exception) -> Never:
        if isinstance(error, BrokenPipeError) and self._job is not None:
            self._stop(None)
        if isinstance(error, CannotWrite):
            raise CliError(f"{error}; job {self._job} goes on") from error
        raise error

    def _answer(self) -> None:
        """Do what so many interrupts ask for, as soon as there is a job."""
        if self._job is None and self._interrupts > 1:
            raise CliError(f"interrupted; the job of request {self._key}, if any, is left as it is")
        if self._typing is not None and self._typing.terminal and self._job is not None:
            # A key was not it, as those are the job's: a window was closed, say.
            raise CliError(f"interrupted; job {self._job} is left as it is")
        if self._interrupts > len(_ANSWERS):
            if self._attendance is not None:
                self._attendance.leave()
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
