"""Which Unix user runs whose jobs."""

import os
import pwd
import time
from pathlib import Path

import msgspec

from jobworker.supervisor.errors import CannotPlace

# An account that was looked up is taken to be as it was for so long: the
# directory behind it (LDAP, say) may be slow, and who calls may not wait.
_FRESH_SECONDS = 60.0


class Account(msgspec.Struct, frozen=True):
    """A Unix user as passwd(5) and group(5) have it; `groups` holds `gid`, too."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def environment(self) -> dict[str, str]:
        """The variables that login(1) would set."""
        return {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": self.shell or "/bin/sh",
        }

    def owns_home(self) -> bool:
        """Whether the home directory is there, and this user's own.

        Those of system accounts often are not: daemon's is /usr/sbin.
        """
        try:
            return Path(self.home).stat().st_uid == self.uid
        except OSError:
            return False


def find_account(name: str) -> Account:
    """The user of this name. Raises KeyError."""
    entry = pwd.getpwnam(name)
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# Whom jobs run as that have no user of their own.
SERVICE_USER = _name_of(os.geteuid())


def service_account() -> Account:
    """The service's own user.

    One that no directory knows, as containers have them, has what the service has.
    """
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        home, shell = os.environ.get("HOME", "/"), os.environ.get("SHELL", "")
        return Account(SERVICE_USER, uid, os.getegid(), (), home, shell)
    return Account(entry.pw_name, uid, entry.pw_gid, (), entry.pw_dir, entry.pw_shell)


# Those that take POSIX's words; csh, fish and nologin do not.
_POSIX_SHELLS = {"ash", "bash", "dash", "ksh", "mksh", "sh", "zsh"}


def login_shell(shell: str) -> tuple[str, ...]:
    """Words that execute those behind them in a login's environment; sh is for other shells."""
    program = shell if Path(shell).name in _POSIX_SHELLS else "/bin/sh"
    return program, "-l", "-c", 'exec "$@"', program


class UsersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unix users for the jobs of identities: by CN (`names`), else by OU (`tenants`).

    An identity that neither has starts no jobs. `jobs_run_as_root` says that
    root may be named; with nobody named, everybody's jobs run as root.
    """

    names: dict[str, str] = {}
    tenants: dict[str, str] = {}
    jobs_run_as_root: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for settings under which no job could start."""
        if not self.mapped() and not self.jobs_run_as_root:
            raise ValueError(
                "users names no Unix user: map CNs in `names` or OUs in `tenants` "
                "(or say `jobs_run_as_root: true`, if that is what is meant)"
            )

    def mapped(self) -> set[str]:
        """Every Unix user that is named."""
        return {*self.names.values(), *self.tenants.values()}


class Users:
    """Looks up who runs a job; without settings all jobs run as the service's own user."""

    def __init__(self, config: UsersConfig | None) -> None:
        self._config = config
        self._known: dict[str, tuple[float, Account]] = {}

    def account(self, owner: str, tenant: str) -> Account | None:
        """The user for a job of this CN and OU; None for the service's own.

        Raises CannotPlace when there is none, or none that may be.
        """
        config = self._config
        if config is None or not config.mapped():
            return None
        name = config.names.get(owner) or config.tenants.get(tenant)
        if name is None:
            whose = f"{owner} (tenant {tenant})" if tenant else owner
            raise CannotPlace(
                f"no Unix user is set for the jobs of {whose}: "
                "the administrator adds one under jobs.users in the server's settings"
            )
        account = self._find(name)
        if account.uid == 0 and not config.jobs_run_as_root:
            raise CannotPlace(
                f"the jobs of {owner} would run as root ({name}): name another user under "
                "jobs.users, or say jobs_run_as_root there"
            )
        if account.uid != os.geteuid() and os.geteuid() != 0:
            raise CannotPlace(f"the service is not root: it cannot run a job as {name}")
        return account

    def others(self, account: Account) -> list[Account]:
        """Every user that runs jobs but for this one and those that do not exist."""
        found = []
        for name in sorted(self._config.mapped() if self._config else ()):
            try:
                other = self._find(name)
            except CannotPlace:
                continue
            if other.uid != account.uid:
                found.append(other)
        return found

    def _find(self, name: str) -> Account:
        since, account = self._known.get(name, (0.0, None))
        if account is None or time.monotonic() > since + _FRESH_SECONDS:
            try:
                account = find_account(name)
            except KeyError:
                raise CannotPlace(
                    f"there is no Unix user {name} on this host: "
                    "create it, or name another under jobs.users in the server's settings"
                ) from None
            self._known[name] = (time.monotonic(), account)
        return account
