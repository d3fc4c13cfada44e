"""Starting the server: check what can be checked, then become the keeper."""

import os
from pathlib import Path
from typing import NoReturn

import msgspec

from jobworker.authz.errors import AuthzError
from jobworker.authz.policy.in_force import load_tested
from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.edge.credentials import TlsFiles, read_credentials
from jobworker.grpc_api.edge.tls import write_openssl_config
from jobworker.grpc_api.errors import ConfigError
from jobworker.grpc_api.guard.rules import RULES, check_declared
from jobworker.grpc_api.privileges import (
    acting_as,
    check_interpreter,
    check_state_dir,
    front_account,
    with_readers,
)
from jobworker.grpc_api.upkeep.expiry import renew_revocations
from jobworker.supervisor import (
    SERVICE_USER,
    SUPERVISOR_TARGET,
    Account,
    KeeperConfig,
    ServiceConfig,
    StateError,
    become_keeper,
    enter_service,
    log_environment,
    upgrade_keeper,
)

FRONT_TARGET = "jobworker.grpc_api.front:main"


def serve(config: ServerConfig) -> NoReturn:
    """Run the service in this process; does not return.

    Raises ApiError when it cannot be served with this configuration; nothing
    has been started then.
    """
    keeper = _checked(config)
    if config.supervisor().cgroup == "auto":
        enter_service(Path(config.state_dir))
    try:
        become_keeper(keeper)
    except StateError as error:
        raise ConfigError(str(error)) from error


def upgrade(config: ServerConfig) -> None:
    """Have the running service go on with today's code and this configuration.

    Its jobs run on, and its clients reconnect. Raises ApiError, with nothing
    changed, when it cannot be served so or there is no service.
    """
    keeper = _checked(config)
    try:
        upgrade_keeper(keeper)
    except StateError as error:
        raise ConfigError(str(error)) from error


def _checked(config: ServerConfig) -> KeeperConfig:
    """What the keeper is to run, if it can be served."""
    check_declared(RULES)
    supervisor = config.supervisor()
    front = front_account(config, supervisor)
    # As who holds the CA's key; the front may have no right to it.
    renew_revocations(tls_files(config))
    with acting_as(front):
        read_credentials(tls_files(config))
    check_interpreter(front)
    with acting_as(front):
        try:
            load_tested(Path(config.policy))
        except AuthzError as error:
            raise ConfigError(str(error)) from error
    supervisor = with_readers(supervisor, front)
    state_dir, runtime = Path(config.state_dir), runtime_directory(config)
    try:
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        # First: in a directory of others', `runtime` might be a link to what is root's.
        check_state_dir(state_dir)
        runtime.mkdir(mode=0o700, exist_ok=True)
        # The umask may have been stricter, never wider; a directory that was there may be.
        runtime.chmod(0o700)
        if front is not None:
            os.chown(runtime, front.uid, front.gid)
    except OSError as error:
        raise ConfigError(f"cannot make {runtime}: {error.strerror}") from error
    if config.audit.directory:
        _prepare_audit(Path(config.audit.directory), front)
    return KeeperConfig(
        config.state_dir,
        ServiceConfig(SUPERVISOR_TARGET, msgspec.json.encode(supervisor).decode()),
        ServiceConfig(FRONT_TARGET, msgspec.json.encode(config).decode()),
        -1,
        # Not in a directory of the front's: root would write what it leads to.
        {
            "OPENSSL_CONF": str(write_openssl_config(Path(config.state_dir))),
            **log_environment(config.log.format, config.log.level),
        },
    )


def _prepare_audit(directory: Path, front: Account | None) -> None:
    """Make the audit log's directory unless it is there; the front must be able to write to it."""
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
            if front is not None:
                os.chown(directory, front.uid, front.gid)
        with acting_as(front):
            writable = os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
    except OSError as error:
        raise ConfigError(f"cannot make the audit log {directory}: {error.strerror}") from error
    if not writable:
        user = front.name if front else SERVICE_USER
        raise ConfigError(
            f"{user} cannot write the audit log {directory}: "
            f"run `chown -R {user} {directory}; chmod 700 {directory}`, or choose another directory"
        )


def runtime_directory(config: ServerConfig) -> Path:
    """Where the front keeps its socket: a directory of its own user alone."""
    return Path(config.state_dir) / "front"


def tls_files(config: ServerConfig) -> TlsFiles:
    """The TLS files of a configuration."""
    tls = config.tls
    return TlsFiles(
        certificate=Path(tls.certificate),
        key=Path(tls.key),
        ca=Path(tls.ca),
        crl=Path(crl) if (crl := tls.revocations()) else None,
    )
