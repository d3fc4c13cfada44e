"""`jobworker logs`: the output of jobs, as it was written."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from jobworker.cli.errors import printable, tell
from jobworker.cli.options import OutputFormat, client_command, output_option
from jobworker.cli.quantities import MOST_BYTES, Bytes, Moment
from jobworker.cli.selection import choosing_jobs

if TYPE_CHECKING:
    from jobworker.cli.display.sink import Sink
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

Command = TypeVar("Command", bound=Callable[..., Any])

# Labels of jobs without a name of their own are ends of their IDs, at least this long.
LABEL_CHARACTERS = 8


class SelectOptions(TypedDict):
    """The values of `select_options`: which part of the output."""

    follow: bool
    lines: int | None
    tail_bytes: int | None
    offset: int
    attempt: int | None
    since: datetime | None
    until: datetime | None
    stdout: bool
    stderr: bool


def select_options(command: Command) -> Command:
    """Add what chooses a part of the output."""
    for option in reversed(_SELECT_OPTIONS):
        command = option(command)
    return command


_SELECT_OPTIONS = (
    click.option("--follow", "-f", is_flag=True, help="Go on until the output is complete."),
    click.option(
        "--lines",
        "-n",
        type=click.IntRange(0, MOST_BYTES),
        metavar="N",
        help="Begin N lines from the end.",
    ),
    click.option(
        "--bytes", "-c", "tail_bytes", type=Bytes(), metavar="SIZE", help="Begin SIZE from the end."
    ),
    click.option(
        "--offset",
        type=Bytes(),
        default=0,
        metavar="SIZE",
        help="Begin SIZE into the output, stdout and stderr together.",
    ),
    click.option(
        "--attempt",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Only what came in the Nth attempt, of a job that is started again.",
    ),
    click.option(
        "--since", type=Moment(), metavar="TIME", help="From then on: 10m ago, or a date and time."
    ),
    click.option("--until", type=Moment(), metavar="TIME", help="Only what came before then."),
    click.option("--stdout", is_flag=True, help="Only what came on stdout."),
    click.option("--stderr", is_flag=True, help="Only what came on stderr."),
)


@click.command()
@select_options
@click.option("--timestamps", "-t", is_flag=True, help="Tell of each line when it came.")
@click.option("--merge", is_flag=True, help="What came on stderr to stdout, too.")
@click.option("--raw", is_flag=True, help="Of several jobs, too, nothing but the bytes.")
@output_option
@client_command
@choosing_jobs()
def logs(
    service: "Service",
    *,
    jobs: tuple[str, ...],
    timestamps: bool,
    merge: bool,
    raw: bool,
    output: OutputFormat,
    **select: Unpack[SelectOptions],
) -> None:
    """Write the output of jobs, byte for byte, stdout to stdout and stderr to stderr.

    With --stdout or --stderr that stream alone, to stdout. Without -f it ends
    at what is there now. When the connection breaks it goes on from the same
    byte once the server is back. The lines of several jobs each have the job
    before them; with -f they come as they are written. With -t stderr tells where
    an attempt begins, of a job that was started again.
    """
    from jobworker.cli.commands.each import for_all_at_once, for_each
    from jobworker.cli.display.attempts import marked, part_of, up_to
    from jobworker.cli.display.progress import Progress, terminal_for_progress
    from jobworker.client.follow import read_output
    from jobworker.client.messages import read_job

    if select["attempt"] and (select["offset"] or select["lines"] or select["tail_bytes"]):
        raise click.UsageError("--attempt says where to begin, and so do -n, -c and --offset")
    if raw and timestamps:
        raise click.UsageError("--raw leaves no place for --timestamps")
    # A prefix that is unique now may not be when the connection breaks.
    found = {status.jobID: status for status in map(service.status, jobs)}
    ids = list(found)
    detail = timestamps or output == "json"
    merge = merge or select["stdout"] != select["stderr"]
    # Taken for each piece, so that two jobs never write into each other's line.
    writing = threading.Condition()
    names = {job: status.request.name for job, status in found.items()}
    sinks = _sinks(names, output, writing, merge=merge, timestamps=timestamps, raw=raw)
    progress = Progress(terminal_for_progress())

    def copy(job: str) -> None:
        request, known = _request(job, select, detail=detail), read_job(found[job])
        end = None
        if select["attempt"]:
            request.offset, end = part_of(known, select["attempt"])
            # Else the next one would be waited for.
            request.noFollow |= end is not None
        pieces = up_to(read_output(service, request), end)
        for piece in marked(pieces, known.attempts if timestamps else ()):
            with writing:
                progress.clear()
                if isinstance(piece, str):
                    tell(f"job {job}: {piece}")
                    continue
                sinks[job].write(piece)
                progress.add(piece.end - piece.offset)
        with writing:
            sinks[job].close()

    together = select["follow"] and len(ids) > 1
    try:
        (for_all_at_once if together else for_each)(service, ids, copy)
    finally:
        progress.clear()


def _request(job: str, select: SelectOptions, *, detail: bool) -> "pb.GetOutputRequest":
    from jobworker.proto import workerservice_pb2 as pb

    stream = pb.OUTPUT_STREAM_BOTH
    if select["stdout"] != select["stderr"]:
        stream = pb.OUTPUT_STREAM_STDOUT if select["stdout"] else pb.OUTPUT_STREAM_STDERR
    request = pb.GetOutputRequest(
        jobID=job,
        raw=True,
        noFollow=not select["follow"],
        offset=select["offset"],
        tailLines=select["lines"],
        tailBytes=select["tail_bytes"],
        stream=stream,
        streams=True,
        detail=detail,
    )
    if select["since"]:
        request.since.FromDatetime(select["since"])
    if select["until"]:
        request.until.FromDatetime(select["until"])
    return request


def _sinks(
    names: Mapping[str, str],
    output: OutputFormat,
    writing: threading.Condition,
    *,
    merge: bool,
    timestamps: bool,
    raw: bool,
) -> "dict[str, Sink]":
    """Return where the output of each job goes, by its ID; `names` are by that, too."""
    from jobworker.cli.display.lines import LineCutter
    from jobworker.cli.display.sink import JsonSink, LineOutput, LineSink, RawSink

    ids = list(names)
    several = len(ids) > 1
    if output == "json":
        return {job: JsonSink({"job": job}) for job in ids}
    if raw or not (several or timestamps):
        return dict.fromkeys(ids, RawSink(merge))
    lines = LineOutput(writing, merge=merge)
    labels = _labels(names) if several else {ids[0]: ""}
    return {
        job: LineSink(label, LineCutter(label, timestamps=timestamps), lines)
        for job, label in labels.items()
    }


def _labels(names: Mapping[str, str]) -> dict[str, str]:
    """Return for each job, by its ID, what tells it from the others, and a bar.

    That is its name, unless others have it, else the shortest end of its ID.
    """
    length = LABEL_CHARACTERS
    while len({job[-length:] for job in names}) < len(names):
        length += 1
    shared = Counter(names.values())
    return {
        job: f"{printable(name) if name and shared[name] == 1 else job[-length:]} | "
        for job, name in names.items()
    }
