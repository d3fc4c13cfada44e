"""Whether a server can be served with its settings: everything that can be known beforehand.

Nothing is changed. What is found is told all at once, with the place in the file
of settings.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from jobworker.authz.errors import AuthzError
from jobworker.authz.names import objection_to_name
from jobworker.authz.policy.globs import text_glob
from jobworker.authz.policy.in_force import load_tested
from jobworker.authz.policy.job_pattern import OWN_TENANT, split_pattern
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rules import EVERYWHERE
from jobworker.authz.yaml_text import near
from jobworker.grpc_api.config import ADMIN_SOCKET, ServerConfig
from jobworker.grpc_api.edge.credentials import TlsFiles, read_credentials
from jobworker.grpc_api.errors import ApiError, ConfigError
from jobworker.grpc_api.privileges import (
    acting_as,
    check_interpreter,
    check_state_dir,
    front_account,
)
from jobworker.grpc_api.rehearsal import rehearse
from jobworker.grpc_api.settings_file import place_of_setting
from jobworker.grpc_api.upkeep.expiry import AHEAD, NO_LIST, expiry_warning
from jobworker.supervisor import SERVICE_USER, Account, UsersConfig, find_account

# struct sockaddr_un has 108 with the NUL at the end.
_MOST_SOCKET = 107


class Problem(NamedTuple):
    """What is wrong with a setting, named by its parts; empty if the text has the place.

    With one that is not `fatal` there is serving, but it is hardly what is meant.
    """

    setting: tuple[str, ...]
    text: str
    fatal: bool = True

    def told(self, file: Path) -> str:
        """The line for people, of a file of settings."""
        if not self.setting:
            return self.text
        place = place_of_setting(file, self.setting)
        return f"{place.file}:{place.line}:{place.column}: {self.text}"


class Findings(NamedTuple):
    """What was found; `front` is who the front's process will be, None for oneself."""

    problems: tuple[Problem, ...]
    front: Account | None

    def refuse(self, file: Path) -> None:
        """Raise ConfigError if there is no serving with these settings; it has all reasons."""
        if fatal := [one.told(file) for one in self.problems if one.fatal]:
            raise ConfigError("\n".join(fatal))

    def warnings(self, file: Path, but_of: str = "") -> list[str]:
        """The lines about what may not be meant, without those of one part of the settings."""
        doubts = [one for one in self.problems if not one.fatal]
        return [one.told(file) for one in doubts if one.setting[:1] != (but_of,)]


def check(config: ServerConfig, *, listening: bool) -> Findings:
    """Find out what is wrong with settings that were read; with `listening` on addresses, too."""
    problems = list(_check_names(config))
    front = None
    try:
        front = front_account(config, config.supervisor())
    except ConfigError as error:
        problems.append(_problem(error))
    else:
        problems += _check_reading(config, front)
        if listening:
            problems += map(_problem, rehearse(config, front))
    problems += _check_directories(config, front)
    return Findings(tuple(problems), front)


def tls_files(config: ServerConfig) -> TlsFiles:
    """The TLS files of a configuration."""
    tls = config.tls
    return TlsFiles(
        certificate=Path(tls.certificate),
        key=Path(tls.key),
        ca=Path(tls.ca),
        crl=Path(crl) if (crl := tls.revocations()) else None,
    )


def _problem(error: ApiError, setting: str = "") -> Problem:
    named = error.setting if isinstance(error, ConfigError) and error.setting else setting
    return Problem(tuple(named.split(".")) if named else (), str(error))


# -- names ---------------------------------------------------------------------


def _tables(config: ServerConfig) -> Iterator[tuple[tuple[str, ...], Mapping[str, object], str]]:
    """Yield each mapping whose keys are names: where it is, itself, and whose names they are."""
    jobs = config.supervisor()
    yield ("output", "tenants"), config.output.tenants, "tenant"
    yield ("quotas", "users"), config.quotas.users, "user"
    yield ("quotas", "tenants"), config.quotas.tenants, "tenant"
    yield ("jobs", "limits", "tenants"), jobs.limits.tenants, "tenant"
    yield ("jobs", "isolation", "tenants"), jobs.isolation.tenants, "tenant"
    if jobs.users is not None:
        for kind, mapped in _lines(jobs.users):
            yield ("jobs", "users", kind), mapped, "user" if kind == "names" else "tenant"


def _lines(users: UsersConfig) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the mappings that have a line for each name, where a pattern has none."""
    for kind, mapped in (("names", users.names), ("tenants", users.tenants)):
        if isinstance(mapped, dict):
            yield kind, mapped


# What does for everybody at once, in the place of lines.
_PATTERNS: dict[tuple[str, ...], str] = {
    ("jobs", "users", "names"): 'names: "{cn}"',
    ("jobs", "users", "tenants"): 'tenants: "{ou}"',
}


def _check_names(config: ServerConfig) -> Iterator[Problem]:
    """Names that no certificate can have: whoever wrote `*` took them for patterns."""
    for table, names, whose in _tables(config):
        for name in names:
            if objection := objection_to_name(name):
                text = (
                    f"{'.'.join(table)}: {name!r} is no {whose}'s name: it {objection}; a name "
                    f"stands for itself alone, so give each {whose} a line"
                )
                if pattern := _PATTERNS.get(table):
                    text += f", or all of them the Unix user of the same name: `{pattern}`"
                yield Problem((*table, name), text)
    users = config.supervisor().users
    if users is None:
        return
    for kind, mapped in _lines(users):
        for name, account in mapped.items():
            if problem := _doubt(users, account):
                yield Problem(
                    ("jobs", "users", kind, name),
                    f"jobs.users.{kind}: {name} starts no job, as {account} {problem}",
                    fatal=False,
                )


def _doubt(users: UsersConfig, name: str) -> str:
    """Why jobs will not run as a Unix user that stands in a line; empty if they will."""
    try:
        account = find_account(name)
    except KeyError:
        return ""
    if account.uid == 0 and not users.jobs_run_as_root:
        return "is root: name another user, or say `jobs_run_as_root: true`"
    if not users.admits(account):
        return f"is in none of the groups {', '.join(users.groups)}: add it to one of them"
    return ""


def _check_tenants(config: ServerConfig, policy: Policy) -> Iterator[Problem]:
    """Tenants that the policy does not know: likely misspelt."""
    sides = {split_pattern(rule.jobs)[0] for rule in policy.statements.rules}
    known = _tenants_of(policy, sides)
    patterns = [text_glob(one) for one in sides - known if one.strip("*")]
    # What everybody may in their own tenant is for tenants of any name.
    any_name = bool(sides & {EVERYWHERE, OWN_TENANT})
    for table, names, whose in _tables(config):
        for name in names if whose == "tenant" else ():
            hint = near(name, known)
            if name in known or any(fits(name) for fits in patterns):
                continue
            if known and (hint.startswith("did") or not any_name):
                text = f"{'.'.join(table)}: no rule of {config.policy} names the tenant {name}"
                yield Problem((*table, name), f"{text}; {hint}".rstrip("; "), fatal=False)


def _tenants_of(policy: Policy, sides: Iterable[str]) -> set[str]:
    """The tenants that a policy names."""
    rules, grants = policy.statements
    subjects = [*(rule.subject for rule in rules), *(grant.member for grant in grants)]
    members = {one.removeprefix("ou:") for one in subjects if one.startswith("ou:")}
    named = {*sides, *(grant.tenant for grant in grants), *members}
    return {one for one in named if objection_to_name(one) is None}


# -- files ---------------------------------------------------------------------


def _check_reading(config: ServerConfig, front: Account | None) -> Iterator[Problem]:
    """What the front reads, read as the front's user."""
    yield from _check_tls(config, front)
    yield from _check_renewal(config, front)
    try:
        check_interpreter(front)
    except ConfigError as error:
        # Importing as that user would fail, too.
        yield _problem(error)
        return
    policy = None
    try:
        with acting_as(front):
            try:
                policy = load_tested(Path(config.policy))
            except AuthzError as error:
                raise ConfigError(str(error)) from error
    except ConfigError as error:
        yield Problem((), str(error))
    if policy is not None:
        yield from _check_tenants(config, policy)


def _check_tls(config: ServerConfig, front: Account | None) -> Iterator[Problem]:
    files = tls_files(config)
    if files.crl is None:
        yield Problem(("tls", "crl"), NO_LIST, fatal=False)
    try:
        with acting_as(front):
            credentials = read_credentials(files)
    except ApiError as error:
        yield _problem(error, "tls")
        return
    now = datetime.now(UTC)
    for part, end in credentials.expiries.items():
        if end < now + AHEAD:
            yield Problem(("tls", part), expiry_warning(part, files, end, now), fatal=False)


def _check_renewal(config: ServerConfig, front: Account | None) -> Iterator[Problem]:
    """Whether the front can ask what renews certificates; it may be started later."""
    if not config.tls.renewal:
        return
    user = front.name if front else SERVICE_USER
    with acting_as(front), socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(config.tls.renewal)
        except OSError as error:
            text = (
                f"{user} cannot connect to {config.tls.renewal} ({error.strerror or error}): no "
                "certificate is renewed until `jobworker ca signer --socket` listens there"
            )
            yield Problem(("tls", "renewal"), text, fatal=False)


def _check_directories(config: ServerConfig, front: Account | None) -> Iterator[Problem]:
    """What is there of directories that the server makes for itself."""
    state_dir = Path(config.state_dir)
    try:
        if state_dir.exists():
            check_state_dir(state_dir)
    except ConfigError as error:
        yield _problem(error, "state_dir")
    except OSError as error:
        yield Problem(("state_dir",), f"cannot use {state_dir}: {error.strerror}")
    longest = len(os.fsencode(config.runtime_directory() / ADMIN_SOCKET))
    if longest > _MOST_SOCKET:
        text = (
            f"state_dir: {state_dir} is {longest - _MOST_SOCKET} bytes too long: a socket in it "
            f"would have a path of {longest}, and unix(7) takes {_MOST_SOCKET}"
        )
        yield Problem(("state_dir",), text)
    audit = Path(config.audit.directory)
    try:
        if config.audit.directory and audit.exists():
            check_audit(audit, front)
    except ConfigError as error:
        yield _problem(error, "audit.directory")


def check_audit(directory: Path, front: Account | None) -> None:
    """Raise ConfigError unless the front can write the audit log into its directory."""
    with acting_as(front):
        writable = os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
        if directory.is_dir() and writable:
            return
    user = front.name if front else SERVICE_USER
    raise ConfigError(
        f"{user} cannot write the audit log {directory}: "
        f"run `chown -R {user} {directory}; chmod 700 {directory}`, or choose another directory"
    )
