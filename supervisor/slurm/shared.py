"""The shared directory: made, and put in the place of the service's own for output."""

import contextlib
import os
import shutil
from pathlib import Path

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import StateError
from jobworker.supervisor.slurm.files import Places

# Of the state directory, what is to be where the nodes are: jobs' output, and what is
# being removed of it, which is moved there.
_MOVED = ("output", "removed")
# Who may only pass finds what they know the name of.
_PASSABLE = 0o711
_OTHERS_PASS = 0o001


def prepare(config: SupervisorConfig) -> Path:
    """Make the shared directory what the service uses. Raises StateError and OSError."""
    shared = Path(config.engine.shared_dir)
    state = Path(config.state_dir)
    if not shared.is_dir():
        shared.mkdir(mode=_PASSABLE)
        shared.chmod(_PASSABLE)
    orders = shared / "orders"
    orders.mkdir(mode=_PASSABLE, exist_ok=True)
    orders.chmod(_PASSABLE)
    for name in _MOVED:
        (shared / name).mkdir(mode=0o750, exist_ok=True)
        _lead(state / name, shared / name)
    return shared


def _lead(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    if link.is_dir() and not link.is_symlink():
        try:
            link.rmdir()
        except OSError:
            raise StateError(
                f"{link} holds jobs that ran on this host: let a service that is to run them on a "
                "cluster have a state_dir of its own"
            ) from None
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(target)


def let_users_pass(shared: Path) -> None:
    """Let users of jobs reach the directories that they own, and find no others."""
    output = shared / "output"
    output.chmod(output.stat().st_mode & 0o7777 | _OTHERS_PASS)


def tidy(places: Places, *, whole: bool) -> None:
    """Remove what a start has left once all of it is on record; `whole`: it never ran."""
    places.order.unlink(missing_ok=True)
    places.signals.unlink(missing_ok=True)
    if whole:
        shutil.rmtree(places.output, ignore_errors=True)


def strays(shared: Path, known: set[str]) -> list[Path]:
    """Orders for jobs that are not on record: their nodes are to find none."""
    return [
        shared / "orders" / name
        for name in os.listdir(shared / "orders")  # noqa: PTH208 - the names are all it takes
        if name.partition(".")[0] not in known
    ]
