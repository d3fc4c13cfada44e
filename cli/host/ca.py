"""`jobworker ca`: a certificate authority in a directory."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobworker.cli.errors import CliError, ExitCode, printable, tell
from jobworker.cli.host.signer import signer
from jobworker.cli.options import OutputFormat, ca_directory_option, output_option, say_json
from jobworker.cli.passphrase import p12_option
from jobworker.cli.suggestions import SuggestingGroup

if TYPE_CHECKING:
    from jobworker.authz.ca.authority import CertificateAuthority, Issued
    from jobworker.authz.ca.certificates import KeyType
    from jobworker.authz.ca.index import Entry
    from jobworker.authz.ca.requests import Asked

Command = TypeVar("Command", bound=Callable[..., Any])
MAX_DAYS = 3650

_REQUEST = click.Path(dir_okay=False, path_type=Path)
_key_type_option = click.option(
    "--key-type",
    type=click.Choice(["p256", "ed25519"]),
    default="p256",
    show_default=True,
    help="The kind of private key. gRPC's own TLS takes no ed25519.",
)
_days_option = click.option(
    "--days",
    type=click.IntRange(1, MAX_DAYS),
    default=365,
    show_default=True,
    help="How long it is valid; never longer than the CA.",
)
_out_option = click.option(
    "--out",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write NAME.crt and NAME.key there, in place of the CA's directory.",
)


@click.group(cls=SuggestingGroup)
def ca() -> None:
    """Issue and revoke the certificates that users and servers show."""


@ca.command()
@ca_directory_option
@click.option("--name", default="job-worker CA", show_default=True, help="The CA's own name.")
@_key_type_option
@click.option("--days", type=click.IntRange(1, 2 * MAX_DAYS), default=MAX_DAYS, show_default=True)
@output_option
def init(directory: Path, name: str, key_type: "KeyType", days: int, output: OutputFormat) -> None:
    """Make a new CA.

    Its key is what everybody's identity rests on: keep the directory backed up,
    and off the servers. They need ca.crt and ca.crl alone.
    """
    with _authority(directory) as authority:
        authority.create(name, key_type, timedelta(days=days))
    if output == "json":
        files = {"ca": authority.certificate, "crl": authority.revocations}
        say_json({name: str(file) for name, file in files.items()})
    else:
        click.echo(f"A new CA is in {directory}; give {authority.certificate} to everybody.")


@ca.command()
@ca_directory_option
@click.option("--cn", metavar="USER", help="The user whom the certificate is for.")
@click.option("--ou", "tenants", metavar="TENANT", multiple=True, help="A tenant of the user's.")
@click.option(
    "--server", "hosts", metavar="HOST", multiple=True, help="A server's DNS name or IP address."
)
@_key_type_option
@_days_option
@_out_option
@p12_option
@output_option
def issue(
    *,
    directory: Path,
    cn: str | None,
    tenants: tuple[str, ...],
    hosts: tuple[str, ...],
    key_type: "KeyType",
    days: int,
    out: Path | None,
    words: str,
    output: OutputFormat,
) -> None:
    """Issue a certificate and a private key, for a user (--cn) or a server (--server).

    \b
    jobworker ca issue --cn alice --ou team-a --ou team-b
    jobworker ca issue --server jobs.example.org --server 10.0.0.7
    """
    if (cn is None) == (not hosts):
        raise click.UsageError("give either --cn, for a user, or --server, for a server")
    if hosts and (tenants or words):
        raise click.UsageError("--ou and --p12 are for users; a server has no tenants")
    from jobworker.authz.ca.authority import Terms
    from jobworker.authz.ca.bundle import check_passphrase, write_bundle

    terms = Terms(timedelta(days=days), key_type, out)
    with _authority(directory) as authority:
        if words:
            check_passphrase(words)
        if cn is not None:
            issued = authority.issue_client(cn, tenants, terms)
        else:
            issued = authority.issue_server(hosts, terms)
        if words:
            to = issued.certificate.with_suffix(".p12")
            write_bundle(issued.certificate, issued.key, authority.certificate, words, to)
    _show_issued(issued, output)


@ca.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_REQUEST)
@output_option
def requests(files: tuple[Path, ...], output: OutputFormat) -> None:
    """Show what requests for certificates ask for, which `jobworker enroll` has made.

    The fingerprint is the key's: it must be the one that the user has told you.
    """
    for file in files:
        asked = _asked(file)
        if output == "json":
            fields = {"cn": asked.cn, "tenants": list(asked.tenants)}
            say_json({"file": str(file), **fields, "fingerprint": asked.fingerprint})
        else:
            click.echo(f"{file}: {_wish(asked)}")


@ca.command()
@ca_directory_option
@click.argument("file", metavar="FILE", type=_REQUEST)
@click.option("--cn", metavar="USER", help="In place of the user that the request names.")
@click.option("--ou", "tenants", metavar="TENANT", multiple=True, help="In place of its tenants.")
@_days_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the certificate goes; by default beside the request, as .crt.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def sign(
    *,
    directory: Path,
    file: Path,
    cn: str | None,
    tenants: tuple[str, ...],
    days: int,
    out: Path | None,
    yes: bool,
    output: OutputFormat,
) -> None:
    """Issue a certificate for a request, whose key is the user's and stays with them.

    What the request asks for is shown first, and it is you who says whether they are
    that user, of those tenants. The same request may be signed again, for a new certificate.
    """
    asked = _asked(file)
    given = replace(asked, cn=cn or asked.cn, tenants=tenants or asked.tenants)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{_wish(given)}: say --yes, as nobody can be asked here")
        if not click.confirm(f"{_wish(given)}\nSign it?", err=True):
            raise CliError("not signed")
    certificate = out or file.with_suffix(".crt")
    with _authority(directory) as authority:
        entry = authority.sign(
            given.key, given.cn, given.tenants, timedelta(days=days), certificate
        )
    if output == "json":
        say_json(_fields(entry) | {"certificate": str(certificate)})
    else:
        click.echo(f"{certificate}: {_line(entry)}")


@ca.command()
@ca_directory_option
@click.argument("name")
@_key_type_option
@_days_option
@_out_option
@output_option
def renew(
    *,
    directory: Path,
    name: str,
    key_type: "KeyType",
    days: int,
    out: Path | None,
    output: OutputFormat,
) -> None:
    """Issue the certificate of a user (CN) or server (its first HOST) again, with a new key.

    The new files take the place of the old ones. The old certificate stays good
    until it expires or you revoke it.
    """
    from jobworker.authz.ca.authority import Terms

    with _authority(directory) as authority:
        issued = authority.renew(name, Terms(timedelta(days=days), key_type, out))
    _show_issued(issued, output)


@ca.command("list")
@ca_directory_option
@output_option
def list_issued(directory: Path, output: OutputFormat) -> None:
    """Show every certificate that was issued, oldest first."""
    with _authority(directory) as authority:
        _show(authority.entries(), output)


@ca.command()
@ca_directory_option
@click.argument("serial", required=False)
@click.option("--cn", metavar="USER", help="Revoke every valid certificate of that user or server.")
@output_option
def revoke(directory: Path, serial: str | None, cn: str | None, output: OutputFormat) -> None:
    """Revoke the certificate with a SERIAL number, or all of a user (--cn).

    A server whose `tls.crl` is this CA's ca.crl refuses it, and ends its
    connections, within a second. Any other does when the list is copied to it:
    `jobworker ca crl --out FILE`. Where `tls.crl` is null it is never refused.
    """
    if (serial is None) == (cn is None):
        raise click.UsageError("give either a SERIAL, as `jobworker ca list` shows it, or --cn")
    with _authority(directory) as authority:
        revoked = authority.revoke_name(cn) if cn else authority.revoke_serial(serial or "")
    _show(revoked, output)
    if not revoked:
        tell("it was revoked before")
    elif output == "text":
        click.echo(
            f"Servers whose tls.crl is {directory / 'ca.crl'} refuse it within a second; copy that "
            "file over the tls.crl of every other server, which refuses it from then on; "
            "those with `crl: null` never do."
        )


@ca.command()
@ca_directory_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the list there too, in place of what is there, all at once.",
)
@output_option
def crl(directory: Path, out: Path | None, output: OutputFormat) -> None:
    """Sign the list of revoked certificates anew, and print its file's name.

    A server refuses everybody once its list has expired, a year after it was
    signed, and warns thirty days ahead. Every issue, renewal and revocation signs
    it anew; so does a server that can read this directory, key and all.
    """
    with _authority(directory) as authority:
        published = authority.publish(out)
    if output == "json":
        say_json({"crl": str(published)})
    else:
        click.echo(published)


ca.add_command(signer)


def _asked(file: Path) -> "Asked":
    """Return what a request in a file asks for."""
    from jobworker.authz.ca.requests import MOST_BYTES, read_request
    from jobworker.authz.errors import CaError

    try:
        with file.open("rb") as opened:
            return read_request(opened.read(MOST_BYTES + 1))
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", ExitCode.USAGE) from error
    except CaError as error:
        raise CliError(f"{file}: {error}", ExitCode.USAGE) from error


def _wish(asked: "Asked") -> str:
    names = [f"ou={tenant}" for tenant in asked.tenants]
    return printable(" ".join([f"cn={asked.cn}", *names, asked.fingerprint]))


@contextmanager
def _authority(directory: Path) -> "Iterator[CertificateAuthority]":
    from jobworker.authz.ca.authority import CertificateAuthority
    from jobworker.authz.errors import CaError

    try:
        yield CertificateAuthority(directory)
    except CaError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


def _show_issued(issued: "Issued", output: OutputFormat) -> None:
    if output == "json":
        files = {"certificate": str(issued.certificate), "key": str(issued.key)}
        say_json(_fields(issued.entry) | files)
    else:
        click.echo(f"{issued.certificate} and {issued.key}: {_line(issued.entry)}")


def _show(entries: "Iterable[Entry]", output: OutputFormat) -> None:
    if output == "json":
        for entry in entries:
            say_json(_fields(entry))
        return
    for entry in entries:
        click.echo(_line(entry))


def _line(entry: "Entry") -> str:
    names = [f"ou={tenant}" for tenant in entry.tenants] or entry.hosts[1:]
    about = " ".join([f"{entry.purpose} {entry.name}", *names])
    state = entry.state(datetime.now(UTC))
    return f"{entry.serial}  {state:<7}  until {entry.not_after:%Y-%m-%d}  {about}"


def _fields(entry: "Entry") -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(entry)
    return fields | {"state": entry.state(datetime.now(UTC))}
