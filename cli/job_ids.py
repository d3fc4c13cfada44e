"""Job IDs on the command line: any unambiguous beginning will do, and shells complete them."""

import click
from click.shell_completion import CompletionItem

from jobworker.cli.errors import CliError, printable
from jobworker.cli.options import endpoint
from jobworker.client.errors import ClientError

# Someone waits at a prompt.
PATIENCE_SECONDS = 2.0


class JobID(click.ParamType[str]):
    """A job's ID or a prefix of it, for the server to find; shells complete it."""

    name = "job"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - given by click
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the jobs one may see whose IDs begin so."""
        return jobs_beginning(ctx, incomplete)


def jobs_beginning(context: click.Context, prefix: str) -> list[CompletionItem]:
    """Return the newest jobs whose IDs begin with `prefix`; none when the server cannot be asked.

    A shell has no place for a reason.
    """
    from jobworker.client.connection import connect
    from jobworker.proto import workerservice_pb2 as pb

    try:
        with connect(endpoint(context)) as service:
            jobs = service.list(pb.ListRequest(pageSize=1000), PATIENCE_SECONDS).jobs
    except (CliError, ClientError):
        return []
    return [
        CompletionItem(job.jobID, help=printable(job.command))
        for job in jobs
        if job.jobID.startswith(prefix)
    ]
