"""What `cp` copies from and to: files of this host, and JOB:PATH."""

import os
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from jobworker.cli.errors import CliError
from jobworker.cli.job_ids import jobs_beginning

STDIO = "-"


class Remote(NamedTuple):
    """A path in the directory of a job, which is called as people do."""

    job: str
    path: str

    def __str__(self) -> str:
        return f"{self.job}:{self.path}"


Place = str | Remote


class PlaceType(click.ParamType[Place]):
    """JOB:PATH, or a file of this host; `-` is stdin or stdout.

    As with docker cp, what begins with / or . is of this host, whatever colons it has.
    """

    name = "place"

    def convert(
        self,
        value: Place,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Place:
        """Return the place."""
        if isinstance(value, Remote):
            return value
        job, colon, path = value.partition(":")
        drive = os.name == "nt" and len(job) == 1
        if not colon or drive or value[0] in "/.":
            return value
        if not job:
            self.fail(f"{value!r} names no job before the colon", param, ctx)
        return Remote(job, path)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - given by click
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the jobs that are called so, each with a colon behind it; else files of here."""
        if incomplete and incomplete[0] not in "/." and ":" not in incomplete:
            jobs = jobs_beginning(ctx, incomplete)
            if jobs:
                return [CompletionItem(f"{job.value}:", help=job.help) for job in jobs]
        return [CompletionItem(incomplete, type="file")]


def unreadable(place: str, error: OSError) -> CliError:
    """Return what ends the command when a file of this host cannot be read, or written."""
    return CliError(f"{error.filename or place}: {error.strerror or error}")
