"""`jobworker completion`: makes a shell complete commands, options and job IDs."""

import click
from click.shell_completion import CompletionItem, get_completion_class

from jobworker.cli.errors import CliError, printable
from jobworker.cli.options import settings

# Someone waits at a prompt.
PATIENCE_SECONDS = 2.0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: eval "$(jobworker completion bash)" in ~/.bashrc
    zsh:  eval "$(jobworker completion zsh)" in ~/.zshrc
    fish: jobworker completion fish > ~/.config/fish/completions/jobworker.fish
    """
    complete = get_completion_class(shell)
    if complete is None:
        raise click.ClickException(f"this click has no completion for {shell}")
    group = context.find_root().command
    click.echo(complete(group, {}, "jobworker", "_JOBWORKER_COMPLETE").source())


def jobs_beginning(context: click.Context, prefix: str) -> list[CompletionItem]:
    """Return the newest jobs whose IDs begin with `prefix`; none when the server cannot be asked.

    A shell has no place for a reason.
    """
    import grpc

    from jobworker.client.connection import connect
    from jobworker.proto import workerservice_pb2 as pb

    try:
        with connect(settings(context)) as service:
            jobs = service.list(pb.ListRequest(pageSize=1000), PATIENCE_SECONDS).jobs
    except (CliError, grpc.RpcError):
        return []
    return [
        CompletionItem(job.jobID, help=printable(job.command))
        for job in jobs
        if job.jobID.startswith(prefix)
    ]
