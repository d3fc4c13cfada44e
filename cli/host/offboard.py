"""`jobworker admin offboard`: somebody leaves, and nothing of theirs goes on."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from jobworker.cli.errors import CliError, ExitCode, printable
from jobworker.cli.host.replies import replies_of
from jobworker.cli.host.serve import config_option
from jobworker.cli.options import OutputFormat, output_option, say_json

if TYPE_CHECKING:
    from jobworker.authz.ca.authority import CertificateAuthority
    from jobworker.authz.ca.index import Entry
    from jobworker.grpc_api.config import ServerConfig


@dataclass
class _Left:
    """What was done to all that is a user's, or would be."""

    certificates: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    policy: list[str] = field(default_factory=list)


@click.command()
@click.argument("user")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="JOBWORKER_CA_DIR",
    show_envvar=True,
    help="The directory of the CA that has issued USER's certificates.",
)
@click.option(
    "--revoked",
    is_flag=True,
    help="They were revoked where the CA is, and tls.crl has its new list.",
)
@click.option(
    "--keep/--remove",
    default=True,
    show_default=True,
    help="What becomes of their jobs, output and schedules once all have ended.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@output_option
def offboard(
    *,
    user: str,
    directory: Path | None,
    revoked: bool,
    keep: bool,
    dry_run: bool,
    yes: bool,
    config: Path,
    output: OutputFormat,
) -> None:
    """Revoke USER's certificates, stop their jobs, and pause or remove their schedules.

    \b
    jobworker admin offboard bob --dir /root/ca --dry-run
    jobworker admin offboard bob --dir /root/ca --remove

    Done again it does what is left to do. What the policy says of USER is told, for
    you to remove. Rules for a tenant or a role need no change.
    """
    if revoked:
        _refuse_dir()
        directory = None
    _check(user, directory, revoked=revoked)
    settings = _settings(config)
    authority = None if directory is None else _authority(directory, settings)
    entries = [] if authority is None else _certificates(authority, user)
    plan = _asked(config, user, "", keep=keep, dry=True)
    plan.certificates = [entry.serial for entry in entries if _is_valid(entry)]
    plan.policy = _policy_places(settings, user)
    if not entries and not (plan.stopped or plan.removed or plan.schedules or revoked):
        raise CliError(
            f"nobody is called {user} here: the CA has issued no such certificate, "
            "and there is no job of theirs to end"
        )
    if dry_run:
        _show(user, plan, output, dry=True, keep=keep)
        return
    if not yes:
        _confirm(user, plan, keep=keep)
    words = "certificates were revoked elsewhere"
    certificates: list[str] = []
    if authority is not None:
        certificates = _revoke(authority, user, settings)
        words = f"{len(certificates)} certificates revoked"
    done = _asked(config, user, words, keep=keep, dry=False)
    done.certificates, done.policy = certificates, plan.policy
    _show(user, done, output, dry=False, keep=keep)


def _refuse_dir() -> None:
    """What the environment says of a CA is for other commands, too; an option is meant."""
    source = click.get_current_context().get_parameter_source("directory")
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError("give either --dir or --revoked")


def _check(user: str, directory: Path | None, *, revoked: bool) -> None:
    from jobworker.authz.names import objection_to_name, shown

    if objection := objection_to_name(user):
        raise click.UsageError(f"the user {shown(user)} {objection}")
    if directory is None and not revoked:
        raise click.UsageError(
            "say where the CA is, --dir; or that the certificates were revoked there, --revoked"
        )
    if user in _oneself(os.environ):
        raise CliError(f"you are {user} yourself: have another administrator do it")


def _oneself(environ: Mapping[str, str]) -> set[str]:
    """The names of who calls: on this host, before sudo, and in their own certificate."""
    # Other systems have none.
    import pwd

    names = {environ.get("SUDO_USER", ""), environ.get("DOAS_USER", "")}
    with suppress(KeyError):
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from jobworker.authz.errors import AuthzError
    from jobworker.authz.identity import identity_from_der
    from jobworker.cli.contexts import settings_file
    from jobworker.cli.settings import resolve

    # Whoever has no settings has no certificate, or none that they use here.
    with suppress(CliError, AuthzError, OSError, ValueError):
        context = click.get_current_context()
        mine = resolve({}, environ, settings_file(click.Context(context.command)))
        der = x509.load_pem_x509_certificate(mine.cert.read_bytes()).public_bytes(Encoding.DER)
        names.add(identity_from_der(der).common_name)
    return names - {""}


def _settings(config: Path) -> "ServerConfig":
    from jobworker.grpc_api.errors import ConfigError
    from jobworker.grpc_api.settings_file import load_server_config

    try:
        settings = load_server_config(config)
    except ConfigError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    if settings.tls.revocations() is None:
        raise CliError(
            "tls.crl is null in the settings, so certificates are accepted until they end: "
            "name the CA's list there",
            ExitCode.USAGE,
        )
    return settings


def _authority(directory: Path, settings: "ServerConfig") -> "CertificateAuthority":
    from jobworker.authz.ca.authority import CertificateAuthority
    from jobworker.authz.ca.lists import is_trusted
    from jobworker.authz.errors import CaError

    authority = CertificateAuthority(directory)
    try:
        authority.entries()
        if not is_trusted(authority.certificate, Path(settings.tls.ca)):
            raise CaError(
                f"the CA in {directory} is not one of those that the server trusts "
                f"({settings.tls.ca})"
            )
    except CaError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    return authority


def _certificates(authority: "CertificateAuthority", user: str) -> "list[Entry]":
    entries = authority.entries()
    return [entry for entry in entries if entry.purpose == "client" and entry.name == user]


def _is_valid(entry: "Entry") -> bool:
    from datetime import UTC, datetime

    return entry.state(datetime.now(UTC)) == "valid"


def _revoke(authority: "CertificateAuthority", user: str, settings: "ServerConfig") -> list[str]:
    """Revoke their certificates, where the server looks, too; return the serial numbers."""
    from jobworker.authz.ca.lists import put_list
    from jobworker.authz.errors import CaError

    served = Path(settings.tls.revocations() or "")
    try:
        revoked = authority.revoke_user(user)
        if served.resolve() != authority.revocations.resolve():
            put_list(authority.revocations, served)
    except CaError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    return [entry.serial for entry in revoked]


def _policy_places(settings: "ServerConfig", user: str) -> list[str]:
    """Where the policy names a user, as FILE:LINE."""
    from jobworker.authz.policy.policy import PolicyError, load_policy

    try:
        said = load_policy(Path(settings.policy)).statements
    except PolicyError:
        # The server has another one in force; this one cannot be read by anybody.
        return []
    subject = f"cn:{user}"
    places = [rule.place for rule in said.rules if rule.subject == subject]
    places += [grant.place for grant in said.grants if grant.member == subject]
    return sorted({str(place) for place in places})


def _asked(config: Path, user: str, words: str, *, keep: bool, dry: bool) -> _Left:
    """Have the server end all that is theirs, or say what it would."""
    from jobworker.proto import admin_pb2

    asked = admin_pb2.Offboard(user=user, remove=not keep, dry=dry, words=words)
    left = _Left()
    with replies_of(config, admin_pb2.Request(offboard=asked)) as replies:
        for one in (reply.offboarded for reply in replies):
            if one.schedule:
                left.schedules.append(one.schedule)
            elif one.done == admin_pb2.Offboarded.REMOVED:
                left.removed.append(one.job)
            else:
                left.stopped.append(one.job)
    return left


def _confirm(user: str, plan: _Left, *, keep: bool) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("say --yes, as nobody can be asked here")
    click.echo("\n".join(_lines(user, plan, dry=True, keep=keep)), err=True)
    if not click.confirm("Do it?", err=True):
        raise CliError("nothing was done")


def _show(user: str, left: _Left, output: OutputFormat, *, dry: bool, keep: bool) -> None:
    if output == "json":
        say_json({"user": user, "dry_run": dry, **vars(left)})
    else:
        click.echo("\n".join(_lines(user, left, dry=dry, keep=keep)))


def _lines(user: str, left: _Left, *, dry: bool, keep: bool) -> list[str]:
    would = "would be " if dry else ""
    schedules = "paused" if keep else "removed"
    told = [
        (left.certificates, "certificates", "revoked"),
        (left.schedules, "schedules", schedules),
        (left.stopped, "jobs", "stopped"),
        (left.removed, "jobs", "removed, with their output"),
    ]
    lines = [
        printable(f"{user}: {len(things)} {kind} {would}{done}: {' '.join(things)}")
        for things, kind, done in told
        if things
    ]
    lines += [printable(f"{user} is named in the policy, at {place}") for place in left.policy]
    return lines or [f"{user}: there is nothing left to do"]
