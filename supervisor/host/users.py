"""Unix users and groups, as the host's directory has them."""

import grp
import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

# Where a host's own users end, unless /etc/login.defs says otherwise (login.defs(5), UID_MIN).
_FIRST_ORDINARY = 1000
# systemd's transient users, nobody, and -1 in 16 bits: https://systemd.io/UIDS-GIDS.
_SYSTEM_AGAIN = range(61184, 65536)


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
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell)


def is_system_user(uid: int) -> bool:
    """Whether it is the host's own user, such as daemon and nobody, and no person's."""
    return uid < _first_ordinary() or uid in _SYSTEM_AGAIN


def _first_ordinary() -> int:
    try:
        lines = Path("/etc/login.defs").read_text(errors="replace").splitlines()
    except OSError:
        return _FIRST_ORDINARY
    words = [line.split() for line in lines]
    found = [pair[1] for pair in words if len(pair) == 2 and pair[0] == "UID_MIN"]
    return int(found[-1]) if found and found[-1].isdigit() else _FIRST_ORDINARY


def find_group(name: str) -> int:
    """The ID of the Unix group of this name. Raises KeyError."""
    return grp.getgrnam(name).gr_gid


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


def group_ids(names: Iterable[str]) -> Iterator[int]:
    """Yield the IDs of those of the groups that there are."""
    for name in names:
        try:
            yield find_group(name)
        except KeyError:
            continue


def members_of(groups: Iterable[str]) -> set[str]:
    """Who is in a group, as far as the host's directory lists them."""
    wanted = set(group_ids(groups))
    listed = {name for one in grp.getgrall() if one.gr_gid in wanted for name in one.gr_mem}
    return listed | {one.pw_name for one in pwd.getpwall() if one.pw_gid in wanted}
