"""`jobworker enroll`: a key that stays here, and the request for its certificate."""

import os
from importlib.util import find_spec
from pathlib import Path

import click

from jobworker.cli.contexts import settings_path
from jobworker.cli.errors import CliError, SettingsError
from jobworker.cli.options import config_file_option
from jobworker.cli.settings import CONTEXTS, Setting, address_of, check_context_name
from jobworker.cli.setup.config import change, known_file, texts_of


@click.command()
@click.argument("server", metavar="HOST[:PORT]")
@click.option("--cn", required=True, metavar="USER", help="Who you are.")
@click.option("--ou", "tenants", metavar="TENANT", multiple=True, help="A tenant of yours.")
@click.option("--ca", metavar="FILE", help="The CA certificate, if you have it already.")
@click.option("--name", metavar="NAME", help="What to call the files, and the context.")
@config_file_option
@click.pass_context
def enroll(
    context: click.Context,
    server: str,
    cn: str,
    tenants: tuple[str, ...],
    ca: str | None,
    name: str | None,
) -> None:
    """Make a private key, and a request for a certificate that the server will know you by.

    Both are put beside the settings file, and what that needs is written there: for
    all, if it is empty, else as a context. The key is never sent. The request goes to the
    administrator, who signs it with `jobworker ca sign`; what comes back is your certificate.
    For a new one, when that ends, the same request is signed again.
    """
    _check(cn, tenants)
    address = address_of(Setting(server, "as given"))
    called = name or address.rpartition(":")[0].strip("[]")
    if objection := check_context_name(called):
        raise click.UsageError(f"{called!r}: {objection}; say --name")
    folder = settings_path(context).absolute().parent
    files = {kind: folder / f"{called}.{kind}" for kind in ("key", "csr", "crt")}
    values = {
        "server": address,
        "ca": ca or str(folder / "ca.crt"),
        "cert": str(files["crt"]),
        "key": str(files["key"]),
    }
    file = known_file(context)
    as_context = bool(name or file.for_all or file.contexts)
    if as_context and called in file.contexts:
        raise SettingsError(f"there is a context {called} in {file.path} already; say --name")
    told = _make(files["key"], files["csr"], cn, tenants)
    texts = texts_of(file.path, values)
    try:
        if as_context:
            change(file.path, {(CONTEXTS, called): texts})
        else:
            change(file.path, {(key,): text for key, text in texts.items()})
    except BaseException:
        files["key"].unlink()
        files["csr"].unlink()
        raise
    where = f"--context {called} " if as_context else ""
    click.echo(f"Your key is {files['key']}; it stays here.")
    click.echo(f"Send {files['csr']} to the administrator, and tell them by another way:")
    click.echo(f"  {told}")
    also = "" if ca else f", and the CA certificate {values['ca']}"
    click.echo(f"What comes back is to be {files['crt']}{also}.")
    click.echo(f"Then `jobworker {where}whoami` says who you are.")


def _check(cn: str, tenants: tuple[str, ...]) -> None:
    if find_spec("cryptography") is None:
        raise CliError(
            "this command needs the library cryptography: run `pip install 'job-worker[enroll]'`"
        )
    from jobworker.authz.names import objection_to_name, shown

    for kind, text in (("user", cn), *(("tenant", tenant) for tenant in tenants)):
        if objection := objection_to_name(text):
            raise click.UsageError(f"the {kind} {shown(text)} {objection}")


def _make(key_file: Path, request_file: Path, cn: str, tenants: tuple[str, ...]) -> str:
    """Write a new key and its request; return the key's fingerprint."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from jobworker.authz.ca.requests import fingerprint, make_request

    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(key_file, secret, 0o600)
        try:
            _write_new(request_file, make_request(key, cn, tenants), 0o644)
        except BaseException:
            key_file.unlink()
            raise
    except FileExistsError as error:
        raise CliError(
            f"{error.filename} is there already, and stays as it is; say another --name, "
            "or have its request signed again"
        ) from error
    except OSError as error:
        raise CliError(f"cannot write {error.filename}: {error.strerror}") from error
    return fingerprint(key.public_key())


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; it has its mode from the beginning."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
