"""Isolation profiles: what of the host a job sees. Kept with bubblewrap (bwrap(1)).

The profile `private` runs the job below two processes of bubblewrap: one
outside, which is the job's main process for everybody else, and one inside,
which is process 1 there; its first child is the one of inside.py, whose first
child is the job's program.
"""

from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobworker.supervisor.errors import CannotPlace
from jobworker.supervisor.host.users import Account

# Not the tenant's PATH: what is found there runs outside the isolation.
_BUBBLEWRAP = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap")
# Directories where users and services keep what is theirs; the job gets an empty one of each.
_EMPTIED = ("/tmp", "/var/tmp", "/home", "/root", "/run")  # noqa: S108 - the job's own
# bubblewrap.c has MAX_ARGS 9000 for options and command together; ours need some.
_MOST_WORDS = 8000
# What programs need of /run, for names on the network.
_RESOLVER = "/run/systemd/resolve"


class Profile(IntEnum):
    """What a job shares with the host; the numbers are the contract's. More is stronger."""

    UNSPECIFIED = 0
    NONE = 1
    PRIVATE = 2


class Isolation(NamedTuple):
    """What holds for a job."""

    profile: Profile = Profile.NONE
    network: bool = True


NOT_ISOLATED = Isolation()


class IsolationRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least isolation of jobs: `profile` is "none" or "private"; `network` false takes it away.

    Only "private" can be without network. `devices` are patterns (glob(7)) of what
    private jobs find below /dev, such as /dev/nvidia*, besides the few that harm nobody.
    """

    profile: str = "none"
    network: bool = True
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what there is not."""
        for pattern in self.devices:
            if not pattern.startswith("/dev/") or ".." in pattern.split("/"):
                raise ValueError(f"devices are below /dev: {pattern!r} is not")
        if self.profile not in {"none", "private"}:
            raise ValueError('profile must be "none" or "private"')
        if not self.network and self.profile != "private":
            raise ValueError('network: false needs profile: "private"')


class IsolationConfig(IsolationRule, frozen=True, forbid_unknown_fields=True):
    """The least isolation of all jobs, and in its place that of the jobs of some tenants.

    `hidden` are more directories that a private job finds empty.
    """

    tenants: dict[str, IsolationRule] = {}
    hidden: tuple[str, ...] = ()

    def rule_of(self, tenant: str) -> IsolationRule:
        """What the jobs of the tenant are bound by."""
        return self.tenants.get(tenant, self)

    def resolve(self, asked: Profile, network: bool, tenant: str) -> Isolation:
        """What holds for a job that asks for this. Raises CannotPlace for too little."""
        rule = self.rule_of(tenant)
        least = Profile[rule.profile.upper()]
        if asked is not Profile.UNSPECIFIED and asked < least:
            whose = f"jobs of tenant {tenant}" if tenant in self.tenants else "jobs"
            raise CannotPlace(
                f"{whose} run in the isolation profile {rule.profile} on this server: "
                "ask for that, or for none in particular"
            )
        if not (network and rule.network):
            # Nothing less comes without a network.
            return Isolation(Profile.PRIVATE, network=False)
        return Isolation(max(asked, least), network=True)

    def devices_of(self, tenant: str) -> list[str]:
        """The devices that a private job of the tenant finds, as there are now."""
        patterns = self.rule_of(tenant).devices
        root = Path("/")
        found = {path for pattern in patterns for path in root.glob(pattern.lstrip("/"))}
        return sorted(map(str, found))

    def demanded(self) -> bool:
        """Whether some tenant's jobs must be isolated."""
        return any(rule.profile == "private" for rule in (self, *self.tenants.values()))


def bubblewrap() -> str:
    """Where bubblewrap is. Raises CannotPlace when it is not installed."""
    for path in _BUBBLEWRAP:
        if Path(path).exists():
            return path
    raise CannotPlace(
        "this host cannot isolate jobs: bubblewrap is not installed "
        "(the administrator installs it: apt install bubblewrap)"
    )


def check_fits(arguments: int, variables: int) -> None:
    """Raise CannotPlace for a command line that bubblewrap does not take."""
    if arguments + 3 * variables > _MOST_WORDS:
        raise CannotPlace(
            f"an isolated job takes {_MOST_WORDS} arguments at most, each variable counting as "
            f"three: this one has {arguments} and {variables} variables; pass them in a file"
        )


def private_options(
    account: Account | None,
    others: Iterable[Account],
    hidden: Iterable[str],
    *,
    network: bool,
    cwd: str,
    shared_home: str,
    devices: Iterable[str] = (),
) -> list[str]:
    """The options of bwrap(1) for a private job of this user (None: the service's own).

    That one's home, `shared_home`, is not the job's: it finds an empty directory there.
    Later mounts go over earlier ones: first all is read-only, then what is
    others' is emptied, last the job's own home comes back.
    """
    options = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if account is None or account.uid:
        options += ["--unshare-user", "--disable-userns"]
    if not network:
        options += ["--unshare-net"]
    options += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for device in devices:
        options += ["--dev-bind", device, device]
    # A directory below one that is emptied would come back with it.
    hidden = tuple(hidden)
    emptied = {Path(path) for path in (*_EMPTIED, *hidden)}
    outside = [other for other in others if not emptied & set(Path(other.home).parents)]
    homes = [other.home for other in outside if other.owns_home()]
    elsewhere = [path for path in (*hidden, *homes) if not emptied & set(Path(path).parents)]
    for path in (*_EMPTIED, *elsewhere):
        if Path(path).is_dir():
            options += ["--tmpfs", path]
    options += ["--ro-bind-try", _RESOLVER, _RESOLVER]
    if account is not None and account.owns_home():
        options += ["--bind", account.home, account.home]
    if account is None and emptied & set(Path(shared_home).parents):
        options += ["--dir", shared_home]
    options += ["--cap-drop", "ALL", "--chdir", cwd]
    return options
