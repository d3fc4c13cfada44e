"""Starting the server: check what can be checked, then become the keeper."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import msgspec

from jobworker.grpc_api.check import check, check_audit, tls_files
from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.edge.tls import write_openssl_config
from jobworker.grpc_api.errors import CannotServe, ConfigError
from jobworker.grpc_api.guard.rules import RULES, check_declared
from jobworker.grpc_api.privileges import check_state_dir, with_readers
from jobworker.grpc_api.rehearsal import rehearse_code
from jobworker.grpc_api.upkeep.expiry import renew_revocations
from jobworker.supervisor import (
    SUPERVISOR_TARGET,
    UPGRADE_DONE,
    Account,
    KeeperConfig,
    ServiceConfig,
    StateError,
    become_keeper,
    enter_service,
    log_environment,
    say,
    set_output_aside,
    upgrade_keeper,
)

# What may be over when the service is started again.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}
FRONT_TARGET = "jobworker.grpc_api.front:main"


def serve(config: ServerConfig, file: Path, *, new_journal: bool = False) -> NoReturn:
    """Run the service in this process with the settings of a file; does not return.

    With `new_journal` the output of jobs whose journal is gone is put aside first.

    Raises ConfigError when it cannot be served with them, CannotServe when another
    service is there; nothing has been started then.
    """
    # Where another service listens, the front says so.
    keeper = _prepared(config, file, listening=False)
    if config.supervisor().cgroup == "auto":
        enter_service(Path(config.state_dir))
    try:
        become_keeper(keeper, _set_output_aside if new_journal else None)
    except StateError as error:
        raise CannotServe(str(error)) from error


def _set_output_aside(state_dir: Path) -> None:
    if aside := set_output_aside(state_dir):
        say("serve", f"the output of jobs that are on no record any more is in {aside}")


def upgrade(config: ServerConfig, file: Path) -> None:
    """Have the running service go on with today's code and the settings of a file.

    Its jobs run on, and its clients reconnect. Returns when the new front serves. Raises
    ConfigError when it cannot be served so, CannotServe when there is no service, or
    there is no telling: then the service goes on as before.
    """
    keeper = _prepared(config, file, listening=True)
    rehearse_code([one for one in (keeper.supervisor, keeper.front) if one is not None])
    try:
        note = upgrade_keeper(keeper)
    except StateError as error:
        raise CannotServe(str(error)) from error
    if note is None:
        say("serve", "told an older keeper to upgrade: its log says how that goes", "warning")
    elif note.outcome != UPGRADE_DONE:
        kind = ConfigError if note.refused else CannotServe
        raise kind(
            f"there is no serving with these settings, so the service goes on with those of "
            f"before: {note.outcome}; its log says why"
        )


def examine(config: ServerConfig, file: Path) -> list[str]:
    """Warnings about the settings of a file, of which nothing is done.

    Raises ConfigError when there is no serving with them.
    """
    check_declared(RULES)
    found = check(config, listening=True)
    found.refuse(file)
    return found.warnings(file)


def _prepared(config: ServerConfig, file: Path, *, listening: bool) -> KeeperConfig:
    """What the keeper is to run, if it can be served."""
    check_declared(RULES)
    # As who holds the CA's key; the front may have no right to it.
    renew_revocations(tls_files(config))
    found = check(config, listening=listening)
    found.refuse(file)
    os.environ.update(log_environment(config.log.format, config.log.level))
    # The front tells of what ends, day by day.
    for warning in found.warnings(file, but_of="tls"):
        say("serve", warning, "warning")
    front = found.front
    supervisor = config.supervisor()
    supervisor = with_readers(supervisor, front)
    state_dir, runtime = Path(config.state_dir), config.runtime_directory()
    with _writing(state_dir):
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        # First: in a directory of others', `runtime` might be a link to what is root's.
        check_state_dir(state_dir)
        runtime.mkdir(mode=0o700, exist_ok=True)
        # The umask may have been stricter, never wider; a directory that was there may be.
        runtime.chmod(0o700)
        if front is not None:
            os.chown(runtime, front.uid, front.gid)
        # Not in a directory of the front's: root would write what it leads to.
        openssl = write_openssl_config(state_dir)
    if config.audit.directory:
        _prepare_audit(Path(config.audit.directory), front)
    return KeeperConfig(
        config.state_dir,
        ServiceConfig(SUPERVISOR_TARGET, msgspec.json.encode(supervisor).decode()),
        ServiceConfig(FRONT_TARGET, msgspec.json.encode(config).decode()),
        -1,
        {
            "OPENSSL_CONF": str(openssl),
            **log_environment(config.log.format, config.log.level),
        },
    )


def _prepare_audit(directory: Path, front: Account | None) -> None:
    """Make the audit log's directory unless it is there; the front must be able to write to it."""
    with _writing(directory):
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
            if front is not None:
                os.chown(directory, front.uid, front.gid)
        check_audit(directory, front)


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Tell what keeps the block from writing there: of a full disk another start may do better."""
    try:
        yield
    except OSError as error:
        kind = CannotServe if error.errno in _PASSING else ConfigError
        raise kind(f"cannot write to {directory}: {error.strerror}") from error
