"""Starting the keeper: in place of this process, or as a child of it; and telling one that runs."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jobworker.supervisor.errors import StateError
from jobworker.supervisor.keeper.config import KeeperConfig
from jobworker.supervisor.keeper.state_lock import DORMANT, holder_of, signal_holder
from jobworker.supervisor.keeper.upgrade import DONE, UNDER_WAY, UpgradeNote, upgrade_note

# What a service on this host runs as its supervisor.
SUPERVISOR_TARGET = "jobworker.supervisor.core.process:main"
_KEEPER = "jobworker.supervisor.keeper"
# How an upgrade went that went well.
UPGRADE_DONE = DONE
_CONFIG = "keeper.json"
# How long replacing a service's processes may take: they have time to end, see keeper.py. Less
# than what systemd gives to a reload (TimeoutStartSec=, 90 s).
UPGRADE_SECONDS = 80.0
LOOK_MILLISECONDS = 50


def _command(config: str) -> list[str]:
    # -P: a file in the working directory must never be imported in place of ours.
    return [sys.executable, "-P", "-m", _KEEPER, config]


def become_keeper(config: KeeperConfig, prepare: Callable[[Path], None] | None = None) -> NoReturn:
    """Replace this process by the keeper (same PID, for the sake of an init system).

    Where a dormant keeper has kept jobs, it is woken in place of that, and this
    process attends it. Raises StateError when another service has the directory.
    Where nobody has it `prepare` is called with it first.
    """
    state_dir = Path(config.state_dir)
    holder = holder_of(state_dir)
    if holder is not None and holder.state != DORMANT:
        raise StateError(
            f"another service (process {holder.pid}) runs on {state_dir}: end it first, "
            "or give this one a state_dir of its own"
        )
    if holder is None and prepare is not None:
        prepare(state_dir)
    path = _write(config)
    if holder is not None:
        _attend(state_dir)
    command = _command(str(path))
    os.execv(command[0], command)


def running_config(state_dir: Path) -> KeeperConfig:
    """What the service on the directory runs. Raises StateError when there is none."""
    if holder_of(state_dir) is None:
        raise StateError(f"no service runs on {state_dir}: there is nothing to upgrade")
    try:
        return KeeperConfig.read(state_dir / _CONFIG)
    except (OSError, ValueError) as error:
        raise StateError(f"cannot read {state_dir / _CONFIG}: {error}") from error


def upgrade_keeper(config: KeeperConfig) -> UpgradeNote | None:
    """Have the service on the directory replace its processes, with this configuration.

    Returns how that went, once they serve or the former configuration is in force again; None
    at once for a keeper that is too old to tell. Raises StateError when there is no service,
    or it does not come to an end.
    """
    state_dir = Path(config.state_dir)
    holder = holder_of(state_dir)
    if holder is None:
        raise StateError(f"no service runs on {state_dir}: there is nothing to upgrade")
    before = upgrade_note(state_dir, holder.pid)
    _write(config)
    pidfd = signal_holder(state_dir, signal.SIGHUP)
    if pidfd is None:
        raise StateError(f"the keeper on {state_dir} has just ended: start it again")
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + UPGRADE_SECONDS
    while before is not None and time.monotonic() < deadline:
        if ended.poll(LOOK_MILLISECONDS):
            raise StateError("the service has ended; its log says why")
        note = upgrade_note(state_dir, holder.pid)
        if note is not None and note.number > before.number and note.outcome != UNDER_WAY:
            return note
    if before is not None:
        raise StateError(
            f"the service does not serve after {UPGRADE_SECONDS:.0f} s; its log says why, and it "
            "goes on trying"
        )
    return None


def _write(config: KeeperConfig) -> Path:
    """Put it where the keeper reads it. Raises StateError."""
    path = Path(config.state_dir) / _CONFIG
    try:
        config.write(path)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from error
    return path


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
