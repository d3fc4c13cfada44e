"""`jobworker serve`: runs the server."""

from pathlib import Path

import click

from jobworker.cli.errors import CliError, ExitCode

DEFAULT_CONFIG = Path("/etc/jobworker/server.yaml")


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The server's settings.",
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="Have the running server go on with this version and these settings; jobs run on.",
)
def serve(config: Path, upgrade: bool) -> None:
    """Run the server until it is told to end.

    SIGTERM and SIGINT stop every job, with its grace, and end the server. SIGUSR1
    ends it but leaves the jobs running, to be taken up by the next `serve`. SIGHUP
    is --upgrade with the settings of its start.
    """
    from jobworker.grpc_api.config import load_server_config
    from jobworker.grpc_api.errors import ApiError
    from jobworker.grpc_api.serve import serve as run_server
    from jobworker.grpc_api.serve import upgrade as upgrade_server

    try:
        settings = load_server_config(config)
        if upgrade:
            upgrade_server(settings)
        else:
            run_server(settings)
    except ApiError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
