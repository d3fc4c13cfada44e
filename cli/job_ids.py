"""Jobs on the command line: by ID, a unique part of it, or name; and shells complete them."""

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from jobworker.cli.errors import CliError, printable
from jobworker.cli.options import endpoint
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.proto import workerservice_pb2 as pb

# Someone waits at a prompt.
PATIENCE_SECONDS = 2.0


# IDs of one minute begin alike; these characters are random.
_SHORT_ID = 8


def short_id(job_id: str) -> str:
    """Return the part of an ID that people need: its end, which the server takes for all of it."""
    return job_id[-_SHORT_ID:]


class JobID(click.ParamType[str]):
    """A job, by ID, a part of that, name or @last. The server finds it, and shells complete it."""

    name = "job"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - given by click
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the jobs one may see that are called so."""
        return jobs_beginning(ctx, incomplete)


def jobs_beginning(context: click.Context, begun: str) -> list[CompletionItem]:
    """Return the newest jobs of which a name, or the ID, begins so; none if nobody can be asked.

    A shell has no place for a reason.
    """
    from jobworker.client.connection import connect
    from jobworker.proto import workerservice_pb2 as pb

    try:
        with connect(endpoint(context)) as service:
            jobs = service.list(pb.ListRequest(pageSize=1000), PATIENCE_SECONDS).jobs
            me = service.whoami().commonName if any(job.request.name for job in jobs) else ""
    except (CliError, ClientError):
        return []
    # A name that several have had is that of the first, which is the newest.
    told = {call: job for job in reversed(jobs) for call in _calls(job, me, begun)}
    return [
        CompletionItem(call, help=printable(job.command)) for call, job in reversed(told.items())
    ]


def _calls(job: "pb.QueryStatusResponse", me: str, begun: str) -> list[str]:
    """Return what a job may be called that begins so; its ID only where that is asked for."""
    name = job.request.name
    name = name if job.owner == me else f"{job.owner}/{name}"
    known = [name] if job.request.name and printable(name) == name else []
    known += [job.jobID, short_id(job.jobID)]
    return [call for call in known if call.startswith(begun)][:1]
