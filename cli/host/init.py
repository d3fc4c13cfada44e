"""`jobworker init`: a first server on this host, from nothing."""

import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shlex import quote
from typing import TypedDict

import click

from jobworker.cli.errors import CliError, ExitCode, tell
from jobworker.cli.host.first_server import UNITS, FirstServer, policy_text
from jobworker.cli.missing import check_server_is_installed
from jobworker.cli.options import OutputFormat, output_option, say_json

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_CA_DAYS, _SERVER_DAYS, _USER_DAYS = 3650, 365, 365
_LISTEN = "127.0.0.1:50051"
# The unit of the Debian package, which is for these settings.
_PACKAGED = Path("/lib/systemd/system/jobworker.service")
_PACKAGED_SETTINGS = Path("/etc/jobworker/server.yaml")


@click.command()
@click.option(
    "--dir",
    "directory",
    type=_DIRECTORY,
    help="Where settings, policy and certificates go.  [default: /etc/jobworker for root, "
    "else ./jobworker]",
)
@click.option(
    "--ca",
    type=_DIRECTORY,
    help="The CA's directory; one that is there is used.  [default: /root/jobworker-ca for root, "
    "else ca in --dir]",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name or address that users call the server by; more than once for several.  "
    "[default: localhost, and this host's name]",
)
@click.option("--listen", metavar="HOST:PORT", help=f"Where it listens.  [default: {_LISTEN}]")
@click.option("--state-dir", type=_DIRECTORY, help="The record of jobs, and their output.")
@click.option("--user", default="", metavar="CN", help="Issue a certificate for a first user.")
@click.option("--tenant", "tenants", multiple=True, help="A tenant of that user's.")
@click.option(
    "--front-user",
    default="jobworker",
    show_default=True,
    metavar="NAME",
    help="For root: the Unix user that faces the network; made if it is not there.",
)
@click.option(
    "--group",
    default="jobusers",
    show_default=True,
    metavar="NAME",
    help="For root: the Unix group of those whose jobs may run; made if it is not there.",
)
@click.option("--as-me", is_flag=True, help="Jobs run as you, whoever's they are; for trying.")
@click.option(
    "--units",
    type=_DIRECTORY,
    help="Where systemd's units go.  [default: /etc/systemd/system for root, where systemd runs]",
)
@click.option("--no-units", is_flag=True, help="Write no units.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def init(
    *,
    directory: Path | None,
    ca: Path | None,
    hosts: tuple[str, ...],
    listen: str | None,
    state_dir: Path | None,
    user: str,
    tenants: tuple[str, ...],
    front_user: str,
    group: str,
    as_me: bool,
    units: Path | None,
    no_units: bool,
    dry_run: bool,
    yes: bool,
    output: OutputFormat,
) -> None:
    """Make a first server: CA, certificate, policy, settings and units, and check them.

    \b
    jobworker init
    jobworker init --host jobs.example.org --listen 0.0.0.0:50051 --user alice --tenant team-a --yes

    It asks for what is not said, shows what it will do, and asks again. Nothing that is
    there is written over. What was made is taken back if the rest cannot be.
    """
    check_server_is_installed()
    own = _is_own(as_me=as_me)
    server = FirstServer(
        **_places(directory, ca, state_dir, own=own),
        listen=listen or _LISTEN,
        hosts=hosts or tuple(dict.fromkeys(("localhost", socket.gethostname()))),
        front_user=None if own else front_user,
        group=None if own else group,
        units=None if no_units else units or _systemd(),
        program=Path(shutil.which(sys.argv[0]) or sys.argv[0]).resolve(),
        user=user,
        tenants=tenants,
        is_root=_is_root(),
    )
    if not yes and not dry_run and sys.stdin.isatty():
        server = _ask(server, asked=(bool(hosts), listen is not None, bool(user)))
    _check(server)
    if output == "text" or not (yes or dry_run):
        click.echo("\n".join(server.plan()), err=not dry_run)
    if dry_run:
        if output == "json":
            say_json(_told(server, [], dry=True))
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("say --yes, as nobody can be asked here")
        if not click.confirm("Make it?", err=True):
            raise CliError("nothing was done")
    _make(server)
    warnings = _examined(server)
    if output == "json":
        say_json(_told(server, warnings, dry=False))
        return
    for warning in warnings:
        tell(f"warning: {warning}")
    click.echo("\n".join(_next(server)))


class _Places(TypedDict):
    directory: Path
    ca: Path
    state: Path
    audit: Path


def _places(directory: Path | None, ca: Path | None, state: Path | None, *, own: bool) -> _Places:
    """Where things go that nobody has said; all in one directory where that was said."""
    base = (directory or Path("/etc/jobworker" if _is_root() else "jobworker")).absolute()
    spread = _is_root() and directory is None
    return _Places(
        directory=base,
        ca=(ca or (Path("/root/jobworker-ca") if spread else base / "ca")).absolute(),
        state=(state or (base / "state" if own else Path("/var/lib/jobworker"))).absolute(),
        audit=base / "audit" if own or not spread else Path("/var/log/jobworker"),
    )


def _is_root() -> bool:
    return os.geteuid() == 0


def _is_own(*, as_me: bool) -> bool:
    """Whether jobs run as who starts the server."""
    return as_me or not _is_root()


def _systemd() -> Path | None:
    # As sd_booted(3) has it.
    there = _is_root() and Path("/run/systemd/system").is_dir() and not _PACKAGED.exists()
    return Path("/etc/systemd/system") if there else None


def _ask(server: FirstServer, asked: tuple[bool, bool, bool]) -> FirstServer:
    """Have what was not said typed, or the default taken."""
    hosts_said, listen_said, user_said = asked
    if not hosts_said:
        words = click.prompt(
            "Names that users call it by", default=" ".join(server.hosts), err=True
        )
        server = replace(server, hosts=tuple(str(words).split()))
    if not listen_said:
        listen = click.prompt("Where it listens", default=server.listen, err=True)
        server = replace(server, listen=str(listen))
    if not user_said:
        user = click.prompt("First user (none: empty)", default="", show_default=False, err=True)
        server = replace(server, user=str(user))
        if user and not server.tenants:
            words = click.prompt("Their tenants", default="", show_default=False, err=True)
            server = replace(server, tenants=tuple(str(words).split()))
    return server


def _check(server: FirstServer) -> None:
    """Raise UsageError for what cannot be, CliError for what is there already."""
    from jobworker.authz.ca.authority import check_user
    from jobworker.authz.ca.certificates import is_host
    from jobworker.authz.errors import CaError
    from jobworker.grpc_api.config import ServerConfig, TlsConfig
    from jobworker.grpc_api.errors import ConfigError

    if server.tenants and not server.user:
        raise click.UsageError("--tenant is for --user")
    wrong = [host for host in server.hosts if not is_host(host)]
    if wrong or not server.hosts:
        raise click.UsageError(f"{' '.join(wrong)!r} is no DNS name or IP address")
    try:
        if server.user:
            check_user(server.user, server.tenants)
        none = TlsConfig(certificate="", key="", ca="")
        ServerConfig(state_dir="", tls=none, policy="", listen=server.listen).address()
    except (CaError, ConfigError) as error:
        raise click.UsageError(str(error)) from error
    there = [path for path in server.new_files() if path.exists() or path.is_symlink()]
    if there:
        raise CliError(
            f"{there[0]} is there already, and stays as it is: nothing was done; "
            "choose another directory, or move it away"
        )


# -- making it ---------------------------------------------------------------------------


class _Made:
    """What was made, to be taken back."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def directory(self, path: Path, mode: int) -> None:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=mode if one == path else 0o755)
            self._paths.append(one)

    def file(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        from jobworker.authz.ca import durable

        durable.create(path, content, mode)
        self._paths.append(path)

    def note(self, *paths: Path) -> None:
        self._paths += paths

    def take_back(self) -> None:
        for path in reversed(self._paths):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()


def _make(server: FirstServer) -> None:
    from jobworker.authz.errors import CaError

    made = _Made()
    try:
        _make_accounts(server)
        _make_certificates(server, made)
        made.file(server.policy, policy_text().encode())
        made.file(server.settings, server.settings_text().encode())
        made.directory(server.audit, 0o700)
        if server.front_user:
            shutil.chown(server.audit, server.front_user)
        for name, path in zip(UNITS, server.unit_files(), strict=False):
            made.directory(path.parent, 0o755)
            made.file(path, server.unit_text(name).encode())
    except BaseException as error:
        made.take_back()
        if isinstance(error, OSError):
            why = f"{error.filename or server.directory}: {error.strerror}"
            raise CliError(f"it cannot be made, and nothing was: {why}") from error
        if isinstance(error, CaError):
            raise CliError(f"it cannot be made, and nothing was: {error}") from error
        raise


def _make_accounts(server: FirstServer) -> None:
    # Other systems have none.
    import grp
    import pwd

    if server.front_user is None or server.group is None:
        return
    try:
        pwd.getpwnam(server.front_user)
    except KeyError:
        words = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        _run("useradd", *words, server.front_user)
    try:
        grp.getgrnam(server.group)
    except KeyError:
        _run("groupadd", server.group)


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CliError(f"cannot run {words[0]}: {error.strerror}") from error
    if done.returncode:
        raise CliError(f"{' '.join(words)}: {done.stderr.strip()}")


def _make_certificates(server: FirstServer, made: _Made) -> None:
    from jobworker.authz.ca.authority import CertificateAuthority, Terms

    authority = CertificateAuthority(server.ca)
    made.directory(server.tls, 0o750 if server.front_user else 0o700)
    if not authority.certificate.exists():
        made.directory(server.ca, 0o700)
        authority.create("job-worker CA", "p256", timedelta(days=_CA_DAYS))
        names = ("index.json", "ca.key", "ca.crl", "ca.crt")
        made.note(*(server.ca / name for name in names))
    terms = Terms(timedelta(days=_SERVER_DAYS), directory=server.tls)
    own = authority.issue_server(server.hosts, terms)
    made.note(own.certificate, own.key)
    for issued, name in ((own.certificate, "server.crt"), (own.key, "server.key")):
        issued.rename(server.tls / name)
        made.note(server.tls / name)
    if server.user:
        first = authority.issue_client(
            server.user, server.tenants, Terms(timedelta(days=_USER_DAYS))
        )
        made.note(first.certificate, first.key)
    for file in (authority.certificate, authority.revocations):
        made.file(server.tls / file.name, file.read_bytes())
    if server.front_user:
        import pwd

        group = pwd.getpwnam(server.front_user).pw_gid
        os.chown(server.tls, -1, group)
        os.chown(server.tls / "server.key", -1, group)
        (server.tls / "server.key").chmod(0o640)
        server.tls.chmod(0o750)


# -- after that --------------------------------------------------------------------------


def _examined(server: FirstServer) -> list[str]:
    """Warnings of `serve --check`. Raises CliError when there is no serving with it."""
    from jobworker.grpc_api.errors import ApiError
    from jobworker.grpc_api.serve import examine
    from jobworker.grpc_api.settings_file import load_server_config

    try:
        return examine(load_server_config(server.settings), server.settings)
    except ApiError as error:
        raise CliError(
            f"{error}\nall was made, but there is no serving with it yet: put that right, and "
            f"`jobworker serve --check --config {server.settings}` says whether it is",
            ExitCode.BAD_SETTINGS,
        ) from error


def _told(server: FirstServer, warnings: list[str], *, dry: bool) -> dict[str, object]:
    return {
        "dry_run": dry,
        "settings": str(server.settings),
        "policy": str(server.policy),
        "ca": str(server.ca),
        "units": list(map(str, server.unit_files())),
        "user": str(server.ca / f"{server.user}.crt") if server.user else None,
        "warnings": warnings,
    }


def _next(server: FirstServer) -> list[str]:
    """What is left to type."""
    packaged = _PACKAGED.exists() and server.settings == _PACKAGED_SETTINGS
    if server.units is not None or packaged:
        lines = ["Start it:", "  systemctl daemon-reload && systemctl enable --now jobworker"]
    else:
        lines = ["Start it:", f"  jobworker serve --config {quote(str(server.settings))}"]
    port = server.listen.rpartition(":")[2]
    address = f"{server.hosts[0]}:{port}"
    if server.front_user:
        lines += [
            "Whose jobs may run is who is in the group, by the name of their certificate:",
            f"  usermod --append --groups {server.group} {server.user or 'alice'}",
        ]
    if server.user:
        ca, cert, key = (
            quote(str(server.ca / name))
            for name in ("ca.crt", f"{server.user}.crt", f"{server.user}.key")
        )
        lines += [
            f"{server.user} calls it with {server.user}.crt, {server.user}.key and ca.crt:",
            f"  jobworker --server {address} --ca {ca} --cert {cert} --key {key} whoami",
        ]
    lines += [
        "The next user keeps the key: they type the first line, you the second.",
        f"  jobworker enroll {address} --cn bob --ou team-a",
        f"  jobworker ca sign --dir {quote(str(server.ca))} {server.hosts[0]}.csr",
    ]
    return lines
