"""As whom the server's processes run, and what that lets them reach.

Of a server started by root, the keeper and the supervisor stay root: they
start jobs as other users. The front, which faces the network, becomes a user of
its own before it does anything else; that user must be able to read the TLS
files and the policy, and nothing else of worth. Job output is readable by its
group.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.errors import ApiError, ConfigError
from jobworker.supervisor import (
    PR_SET_NO_NEW_PRIVS,
    SERVICE_USER,
    Account,
    SupervisorConfig,
    find_account,
    find_group,
)

# What the front makes is its own alone.
_FRONT_UMASK = 0o077


def front_account(config: ServerConfig, supervisor: SupervisorConfig) -> Account | None:
    """The user of the front; None for the one that this process has.

    Raises ConfigError when the settings do not say who runs what, or say
    something unsafe.
    """
    users = supervisor.users
    if os.geteuid() != 0:
        if config.front_user is not None or (users is not None and users.maps()):
            raise ConfigError(
                "front_user and jobs.users need a server started by root, "
                f"but this is {SERVICE_USER}: leave them out, and all jobs run as {SERVICE_USER}",
                "front_user" if config.front_user is not None else "jobs.users",
            )
        return None
    if users is None:
        raise ConfigError(
            "the server is started by root, so jobs.users must say who runs jobs: map CNs to "
            "Unix users in `names`, OUs in `tenants`, or all CNs to the users of the same names by "
            '`names: "{cn}"`; or `jobs_run_as_root: true`; '
            "or start the server as an ordinary user, who then runs all jobs",
            "jobs.users",
        )
    if config.front_user is None:
        if users.maps():
            raise ConfigError(
                "front_user is missing: name a Unix user of its own for the process that faces "
                "the network, such as one made by `adduser --system --group jobworker`",
                "front_user",
            )
        return None
    return _checked(_account(config.front_user, "front_user"), supervisor)


def _account(name: str, setting: str) -> Account:
    try:
        return find_account(name)
    except KeyError:
        text = f"{setting}: there is no Unix user {name} on this host"
        raise ConfigError(text, setting) from None


def _checked(front: Account, supervisor: SupervisorConfig) -> Account:
    if front.uid == 0:
        text = "front_user must not be root: name a user without rights of its own"
        raise ConfigError(text, "front_user")
    users = supervisor.users
    for group in users.groups if users else ():
        try:
            find_group(group)
        except KeyError:
            text = f"jobs.users.groups: there is no Unix group {group} on this host"
            raise ConfigError(text, "jobs.users.groups") from None
    jobs = sorted(users.mapped()) if users else []
    for account in [_account(name, "jobs.users") for name in jobs]:
        if account.uid == front.uid:
            text = f"front_user {front.name} must not run jobs as well"
            raise ConfigError(text, "front_user")
        if front.gid in account.groups:
            raise ConfigError(
                f"{account.name}, who runs jobs, is in the group of front_user {front.name}, "
                "which may read all output: give front_user a group of its own",
                "front_user",
            )
    return front


def check_state_dir(path: Path) -> None:
    """Raise ConfigError if anybody but this user could replace what is in the directory."""
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"{path} must belong to {SERVICE_USER} and be writable by nobody else: "
            f"run `chown {SERVICE_USER} {path}; chmod 711 {path}`, or choose another state_dir"
        )


def check_interpreter(front: Account | None) -> None:
    """Raise ConfigError if the front could not read the Python that runs it, or our code.

    It begins as root, and would fail at the first import after it has become somebody
    else: with a traceback, as what one cannot read is not there for one's imports.
    """
    if front is None:
        return
    files = {file for name in list(sys.modules) if (file := _file_of(name))}
    directories = {file.parent for file in files} | {Path(one) for one in sys.path if one}
    # As root: to others, what is closed to them does not exist.
    needed = [one for one in (*sorted(directories), *sorted(files)) if one.exists()]
    if (closed := closed_to(front, needed)) is not None:
        raise ConfigError(
            f"front_user {front.name} cannot read {closed}, where Python or job-worker is "
            f"installed ({sys.base_prefix}, {sys.prefix}): install both where everybody may "
            "read, such as in a venv below /opt made by /usr/bin/python3, or give "
            f"{front.name} the right to",
            "front_user",
        )


def closed_to(account: Account, needed: Sequence[Path]) -> Path | None:
    """What keeps a user from reading the first of these files and directories that it cannot."""
    resolved = [one.resolve() for one in needed]
    with acting_as(account):
        for path, real in zip(needed, resolved, strict=True):
            if not _readable(path):
                return next((one for one in reversed(real.parents) if not _may(one, os.X_OK)), real)
    return None


def _readable(path: Path) -> bool:
    """Whether one may read a file, or list a directory and what is in it."""
    return _may(path, os.R_OK) and (not path.is_dir() or _may(path, os.X_OK))


def _may(path: Path, right: int) -> bool:
    return os.access(path, right, effective_ids=True)


def _file_of(module: str) -> Path | None:
    """Where a module was read from, None if nowhere; the program itself is no module."""
    file = getattr(sys.modules[module], "__file__", None)
    if module == "__main__" or not isinstance(file, str):
        return None
    return Path(file) if Path(file).is_absolute() else None


@contextmanager
def acting_as(account: Account | None) -> Iterator[None]:
    """Read files as the front's user (None: as oneself) until the block ends.

    Raises ConfigError, which tells as whom, for the block's ApiError.
    """
    if account is None:
        yield
        return
    groups = os.getgroups()
    try:
        os.setgroups(account.groups)
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    except ApiError as error:
        raise ConfigError(f"{error} (read as front_user {account.name})") from error
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def become_front(config: ServerConfig) -> None:
    """Give up root for good, where the settings name a user for the front.

    As an effect of that nobody of the same user may trace this process or read
    its memory (prctl(2), PR_SET_DUMPABLE).
    """
    if config.front_user is not None:
        account = _account(config.front_user, "front_user")
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.umask(_FRONT_UMASK)


def with_readers(supervisor: SupervisorConfig, front: Account | None) -> SupervisorConfig:
    """The supervisor's settings, with output readable by the front."""
    readers = -1 if front is None else front.gid
    return msgspec.structs.replace(supervisor, readers=readers)


def warning(supervisor: SupervisorConfig) -> str:
    """What an administrator must know about who runs jobs; empty when tenants are kept apart."""
    if supervisor.users is not None and supervisor.users.maps():
        return ""
    return (
        f"all jobs run as {SERVICE_USER}, the user of this server: tenants can read, signal and "
        "change each other's jobs and files; see docs/security.md"
    )
