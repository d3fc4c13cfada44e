"""`jobworker version`."""

import platform
from importlib.metadata import version as installed
from importlib.util import find_spec

import click

from jobworker.cli.options import OutputFormat, output_option, say_json


@click.command()
@output_option
def version(output: OutputFormat) -> None:
    """Show the versions of job-worker and of what it stands on.

    `spawn` says how a server on this machine makes processes: natively, or by fork(2)
    in Python where the package was built without a C compiler.
    """
    versions = {
        "jobworker": installed("job-worker"),
        "python": platform.python_version(),
        "grpcio": installed("grpcio"),
        "protobuf": installed("protobuf"),
        # Of a server on this machine; found without loading it.
        "spawn": "native" if find_spec("jobworker.supervisor.keeper._spawn") else "python",
    }
    if output == "json":
        say_json(versions)
    else:
        click.echo("\n".join(f"{name} {number}" for name, number in versions.items()))
