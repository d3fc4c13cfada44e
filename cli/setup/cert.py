"""`jobworker cert`: one's own certificate."""

from importlib.util import find_spec
from pathlib import Path

import click

from jobworker.cli.errors import CliError, ExitCode
from jobworker.cli.options import connection_options, endpoint
from jobworker.cli.passphrase import passphrase, passphrase_option
from jobworker.cli.setup.renew import renew
from jobworker.cli.suggestions import SuggestingGroup


@click.group(cls=SuggestingGroup)
def cert() -> None:
    """Renew your certificate, or take it elsewhere."""


@cert.command()
@click.option(
    "--p12",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    required=True,
    help="The file to write, such as alice.p12.",
)
@passphrase_option
@connection_options
@click.pass_context
def export(context: click.Context, file: Path, passphrase_file: Path | None) -> None:
    """Write your certificate and its key into one file (PKCS #12), for a browser.

    The file is encrypted by a passphrase, which the browser asks for when you import
    it; remove it after that. Whoever has both is you to the server.
    """
    if find_spec("cryptography") is None:
        raise CliError(
            "this command needs the library cryptography: run `pip install 'job-worker[enroll]'`"
        )
    from jobworker.authz.ca.bundle import write_bundle
    from jobworker.authz.errors import CaError

    mine = endpoint(context)
    try:
        write_bundle(mine.cert, mine.key, mine.ca, passphrase(passphrase_file), file)
    except CaError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    click.echo(f"{file} is for your browser: import it there, then remove it.")


cert.add_command(renew)
