"""`jobworker cp`: a file into a job's directory, or out of it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, TextIO

import click

from jobworker.cli.display.progress import Progress
from jobworker.cli.errors import CliError, tell
from jobworker.cli.files.places import STDIO, Place, PlaceType, Remote, unreadable
from jobworker.cli.options import client_command
from jobworker.cli.streams import STDIN

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.client.files import Sink

_READ_BYTES = 256 * 1024
# What cp gives a file that comes from a pipe, before the umask.
_NEW_MODE = 0o666


@click.command()
@click.argument("source", type=PlaceType(), metavar="SRC")
@click.argument("target", type=PlaceType(), metavar="DST")
@client_command
def cp(service: "Service", source: Place, target: Place) -> None:
    """Copy a file into a job's directory, or out of it. One of SRC and DST is JOB:PATH.

    \b
    jobworker cp data.csv JOB:              into the job's working directory
    jobworker cp data.csv JOB:in/today.csv  under another name
    jobworker cp JOB:result.bin .           also after the job's end
    tar c src | jobworker cp - JOB:src.tar  - is stdin, or stdout

    PATH is relative to the job's working directory, and does not lead out of it, nor do
    links. It is read and written as the job's user, and put there as a whole, with its mode,
    or not at all. When the connection breaks, and when the same is copied again after a
    break, it goes on where it was. Directories are not copied: pack them first.
    """
    progress = Progress(_terminal(target))
    try:
        match source, target:
            case str(), Remote():
                _put(service, source, target, progress)
            case Remote(), str():
                _get(service, source, target, progress)
            case _:
                raise click.UsageError("one of SRC and DST is JOB:PATH, the other a file of here")
    finally:
        progress.clear()


def _terminal(target: Place) -> TextIO | None:
    """Where the progress is shown, if the file itself is not."""
    shown_there = target == STDIO and sys.stdout.isatty()
    return sys.stderr if sys.stderr.isatty() and not shown_there else None


# -- to the job ------------------------------------------------------------------------------------


def _put(service: "Service", source: str, target: Remote, progress: Progress) -> None:
    from jobworker.client.files import put_file
    from jobworker.client.outage import Outage

    try:
        with _as_file(source) as (file, mode):
            put_file(
                service,
                target.job,
                file,
                os.fsencode(target.path),
                name=b"" if source == STDIO else os.fsencode(Path(source).name),
                mode=mode,
                outage=Outage(),
                told=progress.add,
            )
    except OSError as error:
        raise unreadable(source, error) from error


@contextmanager
def _as_file(source: str) -> Iterator[tuple[Path, int]]:
    """A regular file with what is to be put, and the mode that it is to have.

    What comes from a pipe is kept until it is there: its hash goes first, and what a broken
    connection has lost is sent again.
    """
    if source != STDIO:
        path = Path(source)
        if path.is_dir():
            raise CliError(
                f"{source} is a directory: files alone are copied; to pack it, "
                f"`tar c {source} | jobworker cp - JOB:FILE.tar`"
            )
        mode = path.stat().st_mode
        if S_ISREG(mode):
            yield path, mode & 0o777
            return
    descriptor, name = tempfile.mkstemp(prefix="jobworker-")
    kept = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            reading = STDIN if source == STDIO else os.open(source, os.O_RDONLY)
            while data := os.read(reading, _READ_BYTES):
                file.write(data)
        yield kept, _NEW_MODE & ~_umask()
    finally:
        kept.unlink()


def _umask() -> int:
    # There is no way to ask but to set it.
    umask = os.umask(0)
    os.umask(umask)
    return umask


# -- from the job ----------------------------------------------------------------------------------


def _get(service: "Service", source: Remote, target: str, progress: Progress) -> None:
    from jobworker.cli.display.sink import write_out
    from jobworker.client.files import FileSink, StreamSink, get_file
    from jobworker.client.outage import Outage

    remote = os.fsencode(source.path)

    def get(sink: "Sink") -> None:
        changed = get_file(service, source.job, remote, sink, outage=Outage(), told=progress.add)
        progress.clear()
        if changed:
            tell(f"{source} was written to while it was copied: what came may be of both")

    if target == STDIO:
        get(StreamSink(write_out))
        return
    place = Path(target)
    if place.is_dir():
        place /= _name_in(source)
    try:
        if place.exists() and not place.is_file():
            with place.open("wb") as stream:
                get(StreamSink(stream.write))
            return
        with closing(FileSink(place, source.job, remote)) as sink:
            get(sink)
    except OSError as error:
        raise unreadable(target, error) from error


def _name_in(source: Remote) -> str:
    """What the file is to be called in a directory of this host."""
    name = source.path.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise CliError(f"{source} is a directory: files alone are copied")
    return name
