"""`jobworker completion`: has a shell complete commands, options and job IDs."""

import click
from click.shell_completion import get_completion_class


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
