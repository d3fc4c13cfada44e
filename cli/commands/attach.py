"""`jobworker attach`: comes back to a job, to watch it and to type to it."""

from queue import SimpleQueue
from typing import TYPE_CHECKING

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
    follow_in_thread,
    signals_to,
)
from jobworker.cli.errors import CliError, failure, tell
from jobworker.cli.job_ids import JobID
from jobworker.cli.keyboard import DETACH_KEYS, Keys, detach_keys_option, is_terminal
from jobworker.cli.options import client_command

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.messages import JobStatus
    from jobworker.proto import workerservice_pb2 as pb


@click.command()
@click.argument("job", type=JobID(), metavar="JOB")
@click.option("--read-only", is_flag=True, help="Watch, and type nothing.")
@click.option("--take-over", is_flag=True, help="Type in place of whoever does now.")
@click.option("--share", is_flag=True, help="Type beside others who share it.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Begin N lines from the end of its output; by default at the end.",
)
@detach_keys_option
@click.pass_context
@client_command
def attach(
    service: "Service",
    context: click.Context,
    *,
    job: str,
    read_only: bool,
    take_over: bool,
    share: bool,
    lines: int,
    detach_keys: bytes,
) -> None:
    """Write a job's output from now on, and send it what is typed here.

    That takes a job that was started with -i or -t. One types at a time, unless
    all share. Ctrl-C is the job's where that has a terminal, and leaves it
    otherwise. It ends with the job, with its exit code, or when you leave.
    """
    from jobworker.cli.display.job import check_known
    from jobworker.cli.display.sink import RawSink
    from jobworker.proto import workerservice_pb2 as pb

    if read_only + take_over + share > 1:
        raise click.UsageError("--read-only, --take-over and --share exclude each other")
    status = service.status(job)
    if status.state == pb.JOB_STATE_ENDED:
        raise CliError(f"job {status.jobID} has ended; `jobworker logs {status.jobID}` has it all")
    events: Events = SimpleQueue()
    sharing = pb.INPUT_SHARING_TAKE_OVER if take_over else pb.INPUT_SHARING_ALONE
    if share:
        sharing = pb.INPUT_SHARING_SHARED
    typing = None
    if not read_only and _takes_input(status):
        terminal = status.request.HasField("terminal")
        typing = Typing(service, events, terminal=terminal, keys=detach_keys, sharing=sharing)
        if terminal:
            tell(f"{detach_keys_text(context)} leaves job {status.jobID}")
    wanted = pb.GetOutputRequest(raw=True, streams=True, untilExit=True, tailLines=lines)
    follow_in_thread(service, events, lambda: status.jobID, wanted, lambda _: RawSink())
    try:
        with signals_to(events):
            ended = _watch(service, status.jobID, typing, events)
    finally:
        if typing is not None:
            typing.end()
    if ended is None:
        tell(f"left: job {status.jobID} goes on")
        return
    check_known(ended)
    context.exit(ended.exit_code or 0)


def detach_keys_text(context: click.Context) -> str:
    """Return the keys as they were given, for people."""
    given = context.params.get("detach_keys")
    if given == Keys().convert(DETACH_KEYS, None, None):
        return "Ctrl-] three times"
    return "the keys of --detach-keys" if given else "nothing but the job's end"


def _takes_input(status: "pb.QueryStatusResponse") -> bool:
    if not (status.request.input or status.request.HasField("terminal")):
        tell("the job takes no input: this only watches")
        return False
    if not is_terminal():
        tell("stdin is no terminal: this only watches; `jobworker send` sends what is there")
        return False
    return True


def _watch(
    service: "Service", job: str, typing: Typing | None, events: Events
) -> "JobStatus | None":
    """Carry out what the events ask for; the job once it has ended, None when the user leaves."""
    while True:
        match events.get():
            case Started() if typing is not None:
                typing.begin(job, redraw=True)
            case Ended(ended):
                return ended
            case Failed(error):
                raise error
            case CannotType(error):
                raise failure(error, service.endpoint) from error
            case Left() | Interrupted():
                return None
            case Resized() if typing is not None:
                typing.resized()
