"""What a new job takes: the options of `start` and `run`, and the request they amount to."""

import functools
import os
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from jobworker.cli.job_ids import JobID
from jobworker.cli.quantities import MOST_COUNT, Ahead, Bytes, Number, Seconds
from jobworker.cli.restarts import (
    HEALTH_OPTIONS,
    NO_RESTART,
    RESTART_OPTIONS,
    RestartOptions,
    health_check,
    restart_policy,
)
from jobworker.cli.signals import SignalNumber
from jobworker.cli.uploads import UPLOAD, uploads_of

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

Command = TypeVar("Command", bound=Callable[..., Any])

# What follows the program's name is the program's, options included.
AS_TYPED = {"allow_interspersed_args": False}


class JobOptions(RestartOptions):
    """The values of `job_options`: times in seconds, sizes in bytes, a rate per second.

    0, "" and None leave it to the server.
    """

    words: tuple[str, ...]
    environment: tuple[str, ...]
    cwd: str
    login: bool
    grace: float
    stop_signal: int | None
    stop_mode: str | None
    timeout: float
    output_limit: int
    output_overflow: str | None
    output_rate: int
    memory: int
    cpus: float | None
    processes: int | None
    open_files: int | None
    io_weight: int | None
    isolation: str | None
    no_network: bool
    interactive: bool
    tty: bool
    on_disconnect: str | None
    queue: str
    priority: int
    queue_timeout: float
    start_at: datetime | None
    start_in: float
    after: tuple[str, ...]
    after_outcome: str | None
    tenant: str
    name: str
    labels: dict[str, str]
    request_id: str
    uploads: tuple[str, ...]


def job_options(command: Command) -> Command:
    """Add what a new job takes; passed on as the items of JobOptions."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_within(command: Command) -> Command:
    """Add what a job within another takes; passed on as the items of JobOptions, all of them.

    What is the other job's is as if nobody had asked.
    """

    @functools.wraps(command)
    def completed(*arguments: Any, **given: Any) -> Any:
        return command(*arguments, **{**_OF_THE_OTHER, **given})

    within: Any = completed
    for option in reversed((*_PROGRAM, _CWD_WITHIN, *_OUTPUT, *_TYPED, *_NAME, *_KEY)):
        within = option(within)
    return cast("Command", within)


def run_options(command: Command) -> Command:
    """Add what each run of a schedule takes; passed on as the items of JobOptions, but the name.

    Nobody is there to type, and each run is a start of its own.
    """

    @functools.wraps(command)
    def completed(*arguments: Any, **given: Any) -> Any:
        return command(*arguments, **{**_OF_NOBODY, **given})

    run: Any = completed
    for option in reversed(_OF_A_RUN):
        run = option(run)
    return cast("Command", run)


def stdin_option(command: Command) -> Command:
    """Add what `start` alone takes; passed on as `stdin`, an open file or None."""
    return click.option(
        "--stdin",
        metavar="FILE",
        type=click.File("rb", lazy=False),
        help="Its stdin is what is in FILE now, which the server keeps until it is read; "
        "- is yours.",
    )(command)


def stop_options(command: Command) -> Command:
    """Add how a stop begins; passed on as `stop_signal` and `stop_mode`, None for as ever."""
    for option in reversed(_STOP_OPTIONS):
        command = option(command)
    return command


def stop_mode_name(mode: str | None) -> str:
    """Return the name in the contract of a choice of --stop-mode."""
    return _STOP_MODES.get(mode or "", "STOP_MODE_UNSPECIFIED")


def _pairs(
    _context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param=option)
        labels[key] = value
    return labels


LABEL = click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_pairs,
    help="Label it, to find it among others: `list --label KEY=VALUE`. More than once for several.",
)

# The choices of an option -> names in the contract.
_OVERFLOWS = {
    "rotate": "OUTPUT_OVERFLOW_ROTATE",
    "stop-recording": "OUTPUT_OVERFLOW_STOP_RECORDING",
    "stop-job": "OUTPUT_OVERFLOW_STOP_JOB",
}
_ISOLATIONS = {"none": "ISOLATION_NONE", "private": "ISOLATION_PRIVATE"}
_ON_DISCONNECT = {
    "keep": "ON_DISCONNECT_KEEP",
    "hup": "ON_DISCONNECT_HANG_UP",
    "stop": "ON_DISCONNECT_STOP",
}
# Has no schedule.
_NOBODY = "nobody"
_OUTCOMES = ("ok", "any", "fail", "ready")
_STOP_MODES = {"tree": "STOP_MODE_TREE", "main": "STOP_MODE_MAIN"}
# What docker(1) calls a terminal of which nothing is known.
KIND = "xterm"
_COUNT = click.IntRange(1, MOST_COUNT)

_STOP_OPTIONS = (
    click.option(
        "--stop-signal",
        type=SignalNumber(),
        metavar="SIGNAL",
        help="What a stop begins with in place of SIGTERM, such as INT.",
    ),
    click.option(
        "--stop-mode",
        type=click.Choice(list(_STOP_MODES)),
        help="Send that to all processes at once, or to the main one, which ends the others.",
    ),
)


def _cwd(text: str) -> Callable[[Any], Any]:
    return click.option("--cwd", "-w", metavar="DIR", default="", help=text)


_CWD = _cwd("The job's working directory, relative to its user's home; by default that home.")
_CWD_WITHIN = _cwd("Its working directory, relative to the job's; by default that.")
_PROGRAM = (
    click.argument("words", metavar="COMMAND [ARGUMENT]...", nargs=-1, required=True),
    click.option(
        "--env",
        "-e",
        "environment",
        metavar="NAME=VALUE",
        multiple=True,
        help="Add a variable to the job's environment; NAME alone takes the value from here.",
    ),
    click.option(
        "--login",
        is_flag=True,
        help="Run it by its user's login shell, with what /etc/profile and ~/.profile set up.",
    ),
    click.option(
        "--grace",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="How long a stop waits between SIGTERM and SIGKILL, such as 10s or 2m.",
    ),
    *_STOP_OPTIONS,
    click.option(
        "--timeout", type=Seconds(), default=0, metavar="TIME", help="Stop it after so long."
    ),
)
# What a job within another has of that one.
_PLACE = (
    click.option("--memory", type=Bytes(), default=0, metavar="SIZE", help="Its most memory."),
    click.option(
        "--cpus",
        type=Number(),
        default=None,
        metavar="N",
        help="Its most processor time: 0.5 is half a processor.",
    ),
    click.option(
        "--processes", type=_COUNT, default=None, metavar="N", help="Its most processes at once."
    ),
    click.option(
        "--open-files",
        type=_COUNT,
        default=None,
        metavar="N",
        help="The most files that each process may have open.",
    ),
    click.option(
        "--io-weight",
        type=click.IntRange(1, 10000),
        default=None,
        metavar="N",
        help="Its share of a contended disk, where others have 100.",
    ),
    click.option(
        "--isolation",
        type=click.Choice(list(_ISOLATIONS)),
        help="private: it sees its own processes, /tmp and home alone.",
    ),
    click.option("--no-network", is_flag=True, help="No network but a loopback of its own."),
    click.option(
        "--queue",
        is_flag=False,
        flag_value="default",
        default="",
        metavar="[QUEUE]",
        help="While there is no room for it, let it wait for its turn, in the server's queue "
        "of that name, in place of being refused.",
    ),
    click.option(
        "--priority",
        type=click.IntRange(-1000, 1000),
        default=0,
        metavar="N",
        help="Of your own that wait, the higher come first.",
    ),
    click.option(
        "--queue-timeout",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Let it wait no longer than that.",
    ),
    click.option(
        "--tenant", default="", help="Start it for this tenant, one of your certificate's."
    ),
)
_AFTER = (
    click.option(
        "--at",
        "start_at",
        type=Ahead(),
        metavar="TIME",
        help="Start it then: the next 18:00 there is, or a date and time.",
    ),
    click.option(
        "--in",
        "start_in",
        type=Seconds(),
        default=0,
        metavar="TIME",
        help="Start it so long from now.",
    ),
    click.option(
        "--after",
        type=JobID(),
        multiple=True,
        metavar="JOB",
        help="Have it wait until JOB has ended; more than once for several.",
    ),
    click.option(
        "--on",
        "after_outcome",
        type=click.Choice(_OUTCOMES),
        help="How these must have ended, or it ends unstarted: by exit with 0 (ok, by default), "
        "in any way, or in any other (fail); or, for as long as they run, that they are ready.",
    ),
)
_OF_THE_OTHER = {
    "memory": 0,
    "cpus": None,
    "processes": None,
    "open_files": None,
    "io_weight": None,
    "isolation": None,
    "no_network": False,
    "tenant": "",
    "queue": "",
    "priority": 0,
    "queue_timeout": 0,
    "start_at": None,
    "start_in": 0,
    "after": (),
    "after_outcome": None,
    "uploads": (),
    **NO_RESTART,
}
_OUTPUT = (
    click.option(
        "--output-limit", type=Bytes(), default=0, metavar="SIZE", help="Keep so much output."
    ),
    click.option(
        "--output-overflow",
        type=click.Choice(list(_OVERFLOWS)),
        help="Beyond that drop the oldest output, record no more, or stop the job.",
    ),
    click.option(
        "--output-rate",
        type=Bytes(),
        default=0,
        metavar="SIZE",
        help="Read so much output a second; a job that writes more waits.",
    ),
)
_TYPED = (
    click.option(
        "--interactive",
        "-i",
        is_flag=True,
        help="Its stdin is open: `run` and `exec` pass theirs on, `send` and `attach` send to it.",
    ),
    click.option(
        "--tty",
        "-t",
        is_flag=True,
        help="It runs on a terminal of its own, to which `run -i` and `exec -i` connect yours.",
    ),
    click.option(
        "--on-disconnect",
        type=click.Choice(list(_ON_DISCONNECT)),
        help="When `run`, `exec` or `attach` is cut off from it for 30 s: it goes on (keep), gets "
        "SIGHUP (hup), or is stopped.",
    ),
)
_NAME = (
    click.option(
        "--name",
        default="",
        metavar="NAME",
        help="What to call it wherever a JOB goes; none of your jobs that have not ended has it.",
    ),
    LABEL,
)
_KEY = (
    click.option(
        "--request-id",
        default="",
        metavar="KEY",
        help="Starting twice with one KEY starts one job, and prints its ID both times; "
        "something else under it is refused, for a day at least.",
    ),
)
_OPTIONS = (
    *(*_PROGRAM, _CWD, *_PLACE, *_AFTER, *RESTART_OPTIONS, *HEALTH_OPTIONS),
    *(UPLOAD, *_OUTPUT, *_TYPED, *_NAME, *_KEY),
)
_OF_A_RUN = (*_PROGRAM, _CWD, *_PLACE, *RESTART_OPTIONS, *HEALTH_OPTIONS, *_OUTPUT, LABEL)
_OF_NOBODY = {
    "uploads": (),
    "start_at": None,
    "start_in": 0,
    "after": (),
    "after_outcome": None,
    "interactive": False,
    "tty": False,
    "on_disconnect": None,
    "request_id": "",
}


def start_request(job: JobOptions, *, stored: bool = False) -> "pb.StartRequest":
    """Return the request for a new job; `stored` is its stdin where --stdin says so.

    Without a request ID it gets one of its own, so that sending it again after
    a broken connection cannot start a second job.
    """
    from jobworker.client.messages import set_texts
    from jobworker.proto import workerservice_pb2 as pb

    overflow = _OVERFLOWS.get(job["output_overflow"] or "", "OUTPUT_OVERFLOW_UNSPECIFIED")
    isolation = _ISOLATIONS.get(job["isolation"] or "", "ISOLATION_UNSPECIFIED")
    request = pb.StartRequest(
        requestID=job["request_id"] or os.urandom(16).hex(),
        graceSeconds=job["grace"],
        timeoutSeconds=job["timeout"],
        outputLimit=pb.OutputLimit(
            bytes=job["output_limit"],
            overflow=getattr(pb, overflow),
            rate=job["output_rate"],
        ),
        limits=pb.Limits(
            memoryBytes=job["memory"],
            cpus=job["cpus"],
            processes=job["processes"],
            openFiles=job["open_files"],
            ioWeight=job["io_weight"],
        ),
        isolation=getattr(pb, isolation),
        noNetwork=job["no_network"],
        stopSignal=job["stop_signal"],
        stopMode=getattr(pb, stop_mode_name(job["stop_mode"])),
        input=_input_mode(job, stored=stored),
        terminal=_terminal() if job["tty"] else None,
        onDisconnect=getattr(pb, _ON_DISCONNECT[job["on_disconnect"] or "keep"]),
        tenant=job["tenant"],
        name=job["name"],
        labels=job["labels"],
        queue=_queue(job),
        priority=job["priority"],
        queueTimeoutSeconds=job["queue_timeout"],
        after=job["after"],
        afterOutcome=getattr(
            pb, f"AFTER_OUTCOME_{(job['after_outcome'] or 'unspecified').upper()}"
        ),
        loginEnvironment=job["login"],
        restart=restart_policy(job),
        health=health_check(job),
        startInSeconds=job["start_in"],
    )
    request.uploads.extend(uploads_of(job["uploads"]))
    if job["start_at"] is not None:
        if job["start_in"]:
            raise click.UsageError("--at and --in both say when it is started")
        request.startAt.FromDatetime(job["start_at"])
    variables = [_variable(text) for text in job["environment"]]
    # Whatever the locale, these are the bytes of this command's own arguments.
    set_texts(request, map(os.fsencode, job["words"]), variables, os.fsencode(job["cwd"]))
    return request


def with_whole_ids(service: "Service", request: "pb.StartRequest") -> "pb.StartRequest":
    """Return the request with the IDs of the jobs to come after: a name may be another's later."""
    from jobworker.proto import workerservice_pb2 as pb

    if request.after:
        # An older server would start it at once; this call came with what it asks for.
        service.schedules(_NOBODY)
    if request.HasField("startAt") or request.startInSeconds:
        # And so would one that is older than this.
        deque(service.events(pb.EventsRequest(noFollow=True, owner=_NOBODY)), maxlen=0)
    whole = [service.status(called).jobID for called in request.after]
    request.after[:] = whole
    return request


def _queue(job: JobOptions) -> str:
    """Return the queue's name; who says how a job waits has it wait."""
    if job["queue"] or not (job["priority"] or job["queue_timeout"]):
        return job["queue"]
    return "default"


def _input_mode(job: JobOptions, *, stored: bool) -> "pb.InputMode":
    from jobworker.proto import workerservice_pb2 as pb

    if stored and (job["interactive"] or job["tty"]):
        raise click.UsageError("--stdin stands in place of -i and -t")
    if stored:
        return pb.INPUT_MODE_STORED
    return pb.INPUT_MODE_OPEN if job["interactive"] else pb.INPUT_MODE_NONE


def _terminal() -> "pb.Terminal":
    """Return a terminal like the user's, of the size of that."""
    from jobworker.cli.keyboard import size
    from jobworker.proto import workerservice_pb2 as pb

    rows, columns = size()
    return pb.Terminal(rows=rows, columns=columns, kind=os.environ.get("TERM") or KIND)


def _variable(text: str) -> tuple[bytes, bytes]:
    name, equals, value = text.partition("=")
    if not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
    if not equals and name not in os.environ:
        raise click.BadParameter(
            f"{name} is not set here; give it as {name}=VALUE", param_hint="--env"
        )
    return os.fsencode(name), os.fsencode(value if equals else os.environ[name])
