"""`jobworker version`."""

import platform
from importlib.metadata import version as installed

import click

from jobworker.cli.options import OutputFormat, output_option, say_json


@click.command()
@output_option
def version(output: OutputFormat) -> None:
    """Show the versions of job-worker and of what it stands on."""
    versions = {
        "jobworker": installed("job-worker"),
        "python": platform.python_version(),
        "grpcio": installed("grpcio"),
        "protobuf": installed("protobuf"),
    }
    if output == "json":
        say_json(versions)
    else:
        click.echo("\n".join(f"{name} {number}" for name, number in versions.items()))
