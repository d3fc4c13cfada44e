"""Which Unix user runs whose jobs."""

import os
import time

import msgspec

from jobworker.supervisor.errors import CannotPlace
from jobworker.supervisor.host.users import (
    Account,
    find_account,
    group_ids,
    is_system_user,
    members_of,
)

# An account that was looked up is taken to be as it was for so long: the
# directory behind it (LDAP, say) may be slow, and who calls may not wait.
_FRESH_SECONDS = 60.0


class UsersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unix users for the jobs of identities: by CN (`names`), else by OU (`tenants`).

    Either has a line for each, or is a pattern: "{cn}" is for the Unix user of the
    CN's own name, "{ou}" for that of the tenant's. An identity that neither has
    starts no jobs.

    Who is in none of the Unix `groups` runs no jobs; a pattern must have some. It never
    leads to root, and to the host's own users, such as daemon, only with
    `system_users`. `jobs_run_as_root` says that root may be named in a line; with
    nobody named, everybody's jobs run as root.
    """

    names: dict[str, str] | str = {}
    tenants: dict[str, str] | str = {}
    groups: tuple[str, ...] = ()
    system_users: bool = False
    jobs_run_as_root: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for settings under which no job could start, or anybody's."""
        for kind, whose, mapped in (("names", "cn", self.names), ("tenants", "ou", self.tenants)):
            if isinstance(mapped, str):
                self._check_pattern(kind, f"{{{whose}}}", mapped)
        if isinstance(self.names, str) and self.tenants:
            raise ValueError(
                "names is a pattern, which everybody's CN fits: leave out tenants, as it would "
                "never be asked"
            )
        if not self.maps() and not self.jobs_run_as_root:
            raise ValueError(
                "users names no Unix user: map CNs in `names` or OUs in `tenants` "
                "(or say `jobs_run_as_root: true`, if that is what is meant)"
            )

    def _check_pattern(self, kind: str, place: str, pattern: str) -> None:
        if pattern.count(place) != 1 or set("{}") & set(pattern.replace(place, "")):
            raise ValueError(
                f"{kind}: {pattern!r} is no pattern: write {place} once, for what the "
                "certificate says, or a line for each"
            )
        if not self.groups:
            raise ValueError(
                f'{kind}: "{pattern}" needs groups: the Unix groups whose members it may lead to, '
                "such as `groups: [users]`"
            )

    def maps(self) -> bool:
        """Whether jobs run as other users than the service's own."""
        return bool(self.names or self.tenants)

    def mapped(self) -> set[str]:
        """Every Unix user that is named in a line."""
        tables = [one for one in (self.names, self.tenants) if isinstance(one, dict)]
        return {name for table in tables for name in table.values()}

    def admits(self, account: Account) -> bool:
        """Whether a user is in one of the groups, if there are any, that may run jobs."""
        return not self.groups or not set(group_ids(self.groups)).isdisjoint(account.groups)

    def user_of(self, owner: str, tenant: str) -> tuple[str, bool] | None:
        """The name of who runs the jobs of a CN and OU, and whether a pattern says so."""
        if isinstance(self.names, str):
            return self.names.replace("{cn}", owner), True
        if name := self.names.get(owner):
            return name, False
        if isinstance(self.tenants, str):
            return (self.tenants.replace("{ou}", tenant), True) if tenant else None
        return (name, False) if (name := self.tenants.get(tenant)) else None


class Users:
    """Looks up who runs a job; without settings all jobs run as the service's own user.

    No user whom it finds is in the group `readers`, which may read all output.
    """

    def __init__(self, config: UsersConfig | None, readers: int = -1) -> None:
        self._config = config
        self._readers = readers
        self._known: dict[str, tuple[float, Account]] = {}

    def account(self, owner: str, tenant: str) -> Account | None:
        """The user for a job of this CN and OU; None for the service's own.

        Raises CannotPlace when there is none, or none that may be.
        """
        config = self._config
        if config is None or not config.maps():
            return None
        found = config.user_of(owner, tenant)
        if found is None:
            whose = f"{owner} (tenant {tenant})" if tenant else owner
            raise CannotPlace(
                f"no Unix user is set for the jobs of {whose}: "
                "the administrator adds one under jobs.users in the server's settings"
            )
        name, by_pattern = found
        account = self._find(name)
        if self._objection(config, account, name, by_pattern):
            # It may have been put right since it was looked up.
            account = self._find(name, afresh=True)
        if objection := self._objection(config, account, name, by_pattern):
            raise CannotPlace(f"the jobs of {owner} would run as {name}, {objection}")
        return account

    def _objection(
        self, config: UsersConfig, account: Account, name: str, by_pattern: bool
    ) -> str | None:
        """Why a user, found under this name, may not run jobs; None if they may."""
        if by_pattern and (objection := _beyond_patterns(config, account, name)):
            return objection
        if account.uid == 0 and not config.jobs_run_as_root:
            return "who is root: name another user under jobs.users, or say jobs_run_as_root there"
        if not config.admits(account):
            return (
                f"who is in none of the groups of jobs.users ({', '.join(config.groups)}): "
                "the administrator adds the user to one of them"
            )
        if self._readers in account.groups:
            return (
                "who is in the group of the server's front_user, which may read all output: "
                "the administrator gives front_user a group of its own"
            )
        if account.uid != os.geteuid() and os.geteuid() != 0:
            return "which takes root, and the service is not"
        return None

    def others(self, account: Account) -> list[Account]:
        """Every user that may run jobs but for this one and those that do not exist."""
        found = []
        for name in sorted(self._all()):
            try:
                other = self._find(name)
            except CannotPlace:
                continue
            if other.uid != account.uid:
                found.append(other)
        return found

    def _all(self) -> set[str]:
        config = self._config
        if config is None:
            return set()
        patterns = isinstance(config.names, str) or isinstance(config.tenants, str)
        return config.mapped() | (members_of(config.groups) if patterns else set())

    def _find(self, name: str, *, afresh: bool = False) -> Account:
        since, account = self._known.get(name, (0.0, None))
        if account is None or afresh or time.monotonic() > since + _FRESH_SECONDS:
            try:
                account = find_account(name)
            except (KeyError, ValueError):
                self._known.pop(name, None)
                raise CannotPlace(
                    f"there is no Unix user {name} on this host: "
                    "create it, or name another under jobs.users in the server's settings"
                ) from None
            self._known[name] = (time.monotonic(), account)
        return account


def _beyond_patterns(config: UsersConfig, account: Account, name: str) -> str | None:
    """Why no pattern leads to a user, found under this name; None if one may."""
    if account.name != name:
        # Some directories take no account of case, but certificates do.
        return f"whose name is {account.name}: the certificate must have the same"
    if account.uid == 0:
        return "who is root, to whom no pattern leads"
    if is_system_user(account.uid) and not config.system_users:
        return (
            f"who is a user of the host's own (user ID {account.uid}): if that is meant, the "
            "administrator says `system_users: true` under jobs.users"
        )
    return None
