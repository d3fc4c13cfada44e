"""`jobworker cert renew`: a new key, and a certificate for it, in place of one's own."""

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, ExitCode, SettingsError, failure, tell
from jobworker.cli.options import (
    OutputFormat,
    connection_options,
    endpoint,
    output_option,
    say_json,
)
from jobworker.cli.quantities import Seconds, moment_text

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from jobworker.client.endpoint import Endpoint


@click.command()
@click.option(
    "--within",
    type=Seconds(),
    metavar="TIME",
    help="Only if the certificate ends within that, such as 7d; for cron.",
)
@connection_options
@output_option
@click.pass_context
def renew(context: click.Context, *, within: float | None, output: OutputFormat) -> None:
    """Have the server renew your certificate, while it is good, for a new key.

    The key is made here and never sent. The new files take the place of the old ones at
    once, and what runs (`run`, `logs -f`, `wait`) goes on with them. The old certificate
    stays good until it ends. Whether a server renews is up to its administrator.
    """
    if find_spec("cryptography") is None:
        raise CliError(
            "this command needs the library cryptography: run `pip install 'job-worker[enroll]'`"
        )
    mine = endpoint(context)
    _finish(mine)
    certificate, key = _read(mine)
    ends = certificate.not_valid_after_utc
    if within is not None and ends - datetime.now(UTC) > timedelta(seconds=within):
        _show(mine, certificate, output, renewed=False)
        return
    fresh = _renewed(mine, certificate, key)
    _show(mine, fresh, output, renewed=True)


def _renewed(
    mine: "Endpoint", certificate: "x509.Certificate", key: "PrivateKeyTypes"
) -> "x509.Certificate":
    """Ask the server for a certificate for a new key, put both in place, and return it."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    from jobworker.authz.ca.renewal import prove
    from jobworker.authz.ca.requests import make_request
    from jobworker.authz.errors import CaError
    from jobworker.client.connection import connect
    from jobworker.client.errors import ClientError
    from jobworker.proto import workerservice_pb2 as pb

    new = ec.generate_private_key(ec.SECP256R1())
    cn, *_ = (
        str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    )
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    request = make_request(new, cn, [str(one.value) for one in units])
    try:
        asked = pb.RenewCertificateRequest(
            request=request,
            certificate=certificate.public_bytes(Encoding.PEM),
            proof=prove(key, request),
        )
        with connect(mine, tell) as service:
            answer = service.renew_certificate(asked)
    except CaError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    except ClientError as error:
        raise failure(error, mine) from error
    fresh = _checked(answer.certificate, new.public_key(), certificate)
    secret = new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _put(mine, secret, answer.certificate)
    return fresh


def _checked(answer: bytes, key: object, formerly: "x509.Certificate") -> "x509.Certificate":
    """The certificate that came, if it is what was asked for."""
    from cryptography import x509

    try:
        fresh = x509.load_pem_x509_certificate(answer)
    except ValueError as error:
        raise CliError(
            f"what the server sent is no certificate: {error}", ExitCode.FAULT
        ) from error
    if fresh.public_key() != key or fresh.subject != formerly.subject:
        raise CliError(
            "the server sent a certificate for another key or name; yours stays as it is",
            ExitCode.FAULT,
        )
    return fresh


# -- files -------------------------------------------------------------------------------
#
# Two files cannot be replaced at once. So both are there under other names first, and
# what an end in between has left is finished by the next renewal.


def _put(mine: "Endpoint", key: bytes, certificate: bytes) -> None:
    from jobworker.authz.ca import durable

    key_file, certificate_file = mine.key.resolve(), mine.cert.resolve()
    try:
        if key_file == certificate_file:
            durable.replace(key_file, key + certificate, 0o600)
            return
        durable.replace(_draft(certificate_file), certificate)
        durable.replace(_draft(key_file), key, 0o600)
        _draft(key_file).rename(key_file)
        _draft(certificate_file).rename(certificate_file)
    except OSError as error:
        raise CliError(
            f"the new certificate cannot be put in place: {error.filename}: {error.strerror}"
        ) from error


def _draft(file: Path) -> Path:
    return file.with_name(f"{file.name}.new")


def _finish(mine: "Endpoint") -> None:
    """Put the certificate in place whose key is there already."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate_file = mine.cert.resolve()
    draft = _draft(certificate_file)
    if not draft.exists():
        return
    try:
        fresh = x509.load_pem_x509_certificate(draft.read_bytes())
        key = load_pem_private_key(mine.key.read_bytes(), None)
        if key.public_key() == fresh.public_key():
            draft.replace(certificate_file)
    except (OSError, ValueError, TypeError):
        # It is made anew, and what is wrong with the others is told then.
        return


def _read(mine: "Endpoint") -> "tuple[x509.Certificate, PrivateKeyTypes]":
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(mine.cert.read_bytes())
        key = load_pem_private_key(mine.key.read_bytes(), None)
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"{mine.cert} or {mine.key} is no certificate or key: {error}"
        ) from error
    if key.public_key() != certificate.public_key():
        raise SettingsError(f"{mine.key} is not the key of {mine.cert}")
    return certificate, key


def _show(
    mine: "Endpoint", certificate: "x509.Certificate", output: OutputFormat, *, renewed: bool
) -> None:
    ends = certificate.not_valid_after_utc
    if output == "json":
        say_json(
            {
                "renewed": renewed,
                "certificate": str(mine.cert),
                "key": str(mine.key),
                "serial": format(certificate.serial_number, "x"),
                "not_after": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            }
        )
    else:
        what = "is renewed: it" if renewed else "stays as it is: it"
        click.echo(f"{mine.cert} {what} ends at {moment_text(ends)}")
