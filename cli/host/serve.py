"""`jobworker serve`: runs the server."""

from pathlib import Path

import click

from jobworker.cli.errors import CliError, ExitCode, tell
from jobworker.cli.missing import check_server_is_installed

DEFAULT_CONFIG = Path("/etc/jobworker/server.yaml")


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The server's settings.",
)


@click.command()
@config_option
@click.option(
    "--upgrade",
    is_flag=True,
    help="Have the running server go on with this version and these settings, and wait until "
    "it does; jobs run on.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Look for what is wrong with the settings, and do nothing else.",
)
@click.option(
    "--new-journal",
    is_flag=True,
    help="Begin anew where the journal is gone: the output of its jobs is put aside.",
)
def serve(config: Path, *, upgrade: bool, check: bool, new_journal: bool) -> None:
    """Run the server until it is told to end.

    SIGTERM and SIGINT stop every job, with its grace, and end the server. SIGUSR1
    ends it but leaves the jobs running, to be taken up by the next `serve`. SIGHUP
    is --upgrade with the settings of its start.

    Settings that cannot be served with end it with 78, and a line for each fault.
    """
    check_server_is_installed()
    from jobworker.grpc_api.errors import ApiError, CannotServe
    from jobworker.grpc_api.serve import examine
    from jobworker.grpc_api.serve import serve as run_server
    from jobworker.grpc_api.serve import upgrade as upgrade_server
    from jobworker.grpc_api.settings_file import load_server_config

    if upgrade and check:
        raise click.UsageError("--upgrade checks the settings by itself: leave out --check")
    try:
        settings = load_server_config(config)
        if check:
            for warning in examine(settings, config):
                tell(f"warning: {warning}")
            click.echo(f"{config}: can be served with")
        elif upgrade:
            upgrade_server(settings, config)
        else:
            run_server(settings, config, new_journal=new_journal)
    except CannotServe as error:
        raise CliError(str(error)) from error
    except ApiError as error:
        raise CliError(str(error), ExitCode.BAD_SETTINGS) from error
