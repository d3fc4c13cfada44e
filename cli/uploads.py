"""Files of this host that go along with the start of a job."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, tell
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

UPLOAD = click.option(
    "--upload",
    "uploads",
    type=click.Path(),
    multiple=True,
    metavar="FILE",
    help="Put FILE into its directory before the program runs; more than once for several, of "
    "4M in all.",
)


def uploads_of(paths: Iterable[str]) -> "Iterator[pb.Upload]":
    """Yield the files as they are now, with their modes."""
    from jobworker.proto import workerservice_pb2 as pb

    for text in paths:
        path = Path(text)
        try:
            data, mode = path.read_bytes(), path.stat().st_mode & 0o777
        except OSError as error:
            raise CliError(f"--upload {text}: {error.strerror}") from error
        yield pb.Upload(name=os.fsencode(path.name), mode=mode, data=data)


def warn_unless_put(service: "Service", request: "pb.StartRequest", job: str) -> None:
    """Say so where the server, which is older, has started the job without its files."""
    if not request.uploads:
        return
    try:
        known = service.status(job).request.uploads
    except ClientError:
        # Who may start jobs may have no right to see them.
        return
    if not known:
        tell(f"job {job} runs without its files: the server is older than this command")
