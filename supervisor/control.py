"""Starting the keeper: in place of this process, or as a child of it; and telling one that runs."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from jobworker.supervisor.errors import StateError
from jobworker.supervisor.keeper.config import KeeperConfig
from jobworker.supervisor.keeper.state_lock import DORMANT, holder_of, signal_holder

# What a service on this host runs as its supervisor.
SUPERVISOR_TARGET = "jobworker.supervisor.core.process:main"
_KEEPER = "jobworker.supervisor.keeper"
_CONFIG = "keeper.json"


def _command(config: str) -> list[str]:
    # -P: a file in the working directory must never be imported in place of ours.
    return [sys.executable, "-P", "-m", _KEEPER, config]


def become_keeper(config: KeeperConfig) -> NoReturn:
    """Replace this process by the keeper (same PID, for the sake of an init system).

    Where a dormant keeper has kept jobs, it is woken in place of that, and this
    process attends it. Raises StateError when another service has the directory.
    """
    state_dir = Path(config.state_dir)
    holder = holder_of(state_dir)
    if holder is not None and holder.state != DORMANT:
        raise StateError(
            f"another service (process {holder.pid}) runs on {state_dir}: end it first, "
            "or give this one a state_dir of its own"
        )
    path = state_dir / _CONFIG
    config.write(path)
    if holder is not None:
        _attend(state_dir)
    command = _command(str(path))
    os.execv(command[0], command)


def upgrade_keeper(config: KeeperConfig) -> None:
    """Have the service on the directory replace its processes, with this configuration.

    Raises StateError when there is none.
    """
    state_dir = Path(config.state_dir)
    if holder_of(state_dir) is None:
        raise StateError(f"no service runs on {state_dir}: there is nothing to upgrade")
    config.write(state_dir / _CONFIG)
    signal_holder(state_dir, signal.SIGHUP)


def _attend(state_dir: Path) -> NoReturn:
    """Wake a dormant keeper, pass signals on to it, and end when it does."""
    pidfd = signal_holder(state_dir, signal.SIGHUP)
    if pidfd is None:
        raise StateError(f"the keeper on {state_dir} has just ended: start again")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda caught, _: signal.pidfd_send_signal(pidfd, caught))
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    woken = False
    while not poll.poll(200):
        holder = holder_of(state_dir)
        dormant = holder is not None and holder.state == DORMANT
        if dormant and woken:
            break
        woken = woken or not dormant
    sys.exit(0)


def spawn_keeper(config: KeeperConfig) -> subprocess.Popen[bytes]:
    """Start a keeper in its own session, so that a terminal's signals do not reach it.

    Raises StateError when another service has the directory, or it cannot be used.
    """
    holder = holder_of(Path(config.state_dir))
    if holder is not None:
        raise StateError(f"another service (process {holder.pid}) runs on {config.state_dir}")
    path = Path(config.state_dir) / _CONFIG
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        config.write(path)
    except OSError as error:
        raise StateError(f"cannot use {config.state_dir}: {error.strerror}") from error
    return subprocess.Popen(
        _command(str(path)),
        stdin=subprocess.DEVNULL,
        pass_fds=(config.client_fd,) if config.client_fd >= 0 else (),
        start_new_session=True,
    )
