"""`jobworker ca signer`: renews users' certificates for a server, whose process has no key."""

from datetime import timedelta
from pathlib import Path

import click

from jobworker.cli.errors import CliError, ExitCode, tell
from jobworker.cli.options import ca_directory_option

_MOST_DAYS = 3650


@click.command()
@ca_directory_option
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    required=True,
    help="Where to listen: the server's tls.renewal.",
)
@click.option("--user", metavar="NAME", help="Who alone may connect: the server's front_user.")
@click.option(
    "--days",
    type=click.IntRange(1, _MOST_DAYS),
    default=30,
    show_default=True,
    help="How long what is renewed is valid; never longer than the CA.",
)
def signer(directory: Path, socket: Path, user: str | None, days: int) -> None:
    """Renew users' certificates that are still good, for a server on this host, until stopped.

    The server asks it where `jobworker cert renew` asks the server. It looks at the
    certificate itself: one of this CA, for a user, neither revoked nor ended, whose
    holder has signed the request. A server that somebody has taken over gets nothing
    else from it.
    """
    import asyncio

    from jobworker.authz.ca.authority import CertificateAuthority
    from jobworker.authz.errors import CaError
    from jobworker.grpc_api.signer.signer import CannotSign, listen, sign

    authority = CertificateAuthority(directory)
    try:
        authority.entries()
        listening = listen(socket, user)
        tell(f"renewing certificates of {directory} at {socket}")
        asyncio.run(sign(authority, timedelta(days=days), listening, tell))
    except CaError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    except CannotSign as error:
        raise CliError(str(error)) from error
