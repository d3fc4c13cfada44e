"""Cgroup v2 (kernel: Documentation/admin-guide/cgroup-v2.rst) as the bounds of a job's tree.

Also where version 2 is mounted beside version 1 (a hybrid host), where it has
no controllers but still holds processes together and kills them as one.

The service's cgroup OWN, that of its systemd unit say, becomes

    OWN/jobworker-HASH/service    the service's own processes
    OWN/jobworker-HASH/N...       a job each

as controllers can be given to cgroups below only by one without processes of
its own ("no internal processes").
"""

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from jobworker.supervisor.host import kernel_files
from jobworker.supervisor.host.limits import CONTROLLER, Limits

# How long a quota of CPU time is counted over, in microseconds; the kernel's default.
CPU_PERIOD_US = 100_000
_LEAF = "service"


class JobCgroups(NamedTuple):
    """The cgroup below which those of the jobs are made, and the controllers they have.

    `shortfall` says in words why there are no more.
    """

    directory: Path
    controllers: frozenset[str]
    shortfall: str

    @classmethod
    def prepare(cls, state_dir: Path) -> "JobCgroups | None":
        """Make it below the service's own cgroup; None where that cannot be done."""
        base = _base(state_dir)
        if base is None:
            return None
        try:
            base.mkdir(exist_ok=True)
            probe = base / "probe"
            probe.mkdir(exist_ok=True)
            writable = os.access(probe / "cgroup.procs", os.W_OK)
            probe.rmdir()
        except OSError:
            return None
        if not writable or not _may_move_into(base):
            return None
        shortfall = _enable(base.parent) or _enable(base)
        enabled = (base / "cgroup.subtree_control").read_text().split()
        return cls(base, frozenset(enabled), shortfall)

    def jobs(self) -> list["Cgroup"]:
        """Every job's cgroup that is there."""
        with contextlib.suppress(FileNotFoundError):
            return [
                Cgroup(path)
                for path in self.directory.iterdir()
                if path.is_dir() and path.name != _LEAF
            ]
        return []

    def dissolve(self) -> None:
        """Give back what `prepare` and `enter_service` took, as far as nothing else needs it."""
        own = self.directory.parent
        with contextlib.suppress(OSError):
            for directory in (self.directory, own):
                enabled = (directory / "cgroup.subtree_control").read_text().split()
                # The root's are everybody's.
                if enabled and directory.parent.joinpath("cgroup.procs").exists():
                    text = " ".join(f"-{name}" for name in enabled)
                    (directory / "cgroup.subtree_control").write_text(text)
            leaf = self.directory / _LEAF
            if leaf.exists():
                for pid in (leaf / "cgroup.procs").read_text().split():
                    (own / "cgroup.procs").write_text(pid)
                leaf.rmdir()
            self.directory.rmdir()


def enter_service(state_dir: Path) -> None:
    """Move this process, and so all that it starts, into the service's leaf.

    Does nothing where that cannot be done: then there are no controllers.
    """
    base = _base(state_dir)
    if base is None:
        return
    with contextlib.suppress(OSError):
        leaf = base / _LEAF
        leaf.mkdir(parents=True, exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")


def _base(state_dir: Path) -> Path | None:
    """Where the jobs' cgroups belong; None on a host without cgroup v2.

    It is below the service's own cgroup, and named after the state directory,
    so that several services on one host do not meet.
    """
    mount = _mount_point(Path("/proc/self/mountinfo").read_text())
    own = _own_path(Path("/proc/self/cgroup").read_text())
    if mount is None or own is None:
        return None
    name = f"jobworker-{hashlib.sha256(str(state_dir).encode()).hexdigest()[:12]}"
    return mount / own.removesuffix(f"/{name}/{_LEAF}").lstrip("/") / name


def _enable(directory: Path) -> str:
    """Give the cgroups below all controllers that are there; why it cannot be, or empty."""
    control = directory / "cgroup.subtree_control"
    present = (directory / "cgroup.controllers").read_text().split()
    shortfall = ""
    for name in sorted(set(present) & set(CONTROLLER.values())):
        try:
            control.write_text(f"+{name}")
        except OSError as error:
            shortfall = (
                f"other processes live in the service's own cgroup {directory}, which keeps from it"
                if error.errno == errno.EBUSY
                else f"the service may not use in its own cgroup {directory}"
            )
    return shortfall


def _may_move_into(base: Path) -> bool:
    """Whether processes may be moved: cgroup.procs of the common ancestor must be writable."""
    return os.access(base.parent / "cgroup.procs", os.W_OK)


def _mount_point(mountinfo: str) -> Path | None:
    """Where cgroup2 is mounted, from the text of /proc/self/mountinfo (proc(5))."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] == "cgroup2":
            return Path(fields.split(" ")[4])
    return None


def _own_path(text: str) -> str | None:
    """This process's cgroup v2 path, from the text of /proc/self/cgroup (cgroups(7))."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


class Cgroup:
    """A job's cgroup, which holds its whole tree from before its first instruction."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def pids(self) -> list[int]:
        """The processes in it and below it. Raises OSError if that cannot be told."""
        found: list[int] = []
        for root, _, _ in os.walk(self.directory, onerror=_unless_gone):
            try:
                found += map(int, Path(root, "cgroup.procs").read_text().split())
            except OSError as error:
                _unless_gone(error)
        return found

    def populated(self) -> bool:
        """Whether any process is left in it or below it; a cgroup that is gone has none.

        Raises OSError if that cannot be told, such as for want of descriptors.
        """
        try:
            events = kernel_files.read(self.directory / "cgroup.events")
        except OSError as error:
            _unless_gone(error)
            return False
        return "populated 1" in events

    def kill(self) -> bool:
        """SIGKILL the whole tree at once; False where the kernel cannot (before 5.14)."""
        try:
            kernel_files.write(self.directory / "cgroup.kill", "1")
        except FileNotFoundError:
            return not self.directory.exists()
        return True

    def freeze(self, *, frozen: bool) -> bool:
        """Have the tree stand still, soon, or go on; False where the kernel cannot (before 5.2)."""
        try:
            kernel_files.write(self.directory / "cgroup.freeze", "1" if frozen else "0")
        except OSError as error:
            _unless_gone(error)
            return not self.directory.exists()
        return True

    def frozen(self) -> bool:
        """Whether nothing in it moves; a cgroup that is empty or gone has nothing that could."""
        try:
            events = kernel_files.read(self.directory / "cgroup.events")
        except OSError as error:
            _unless_gone(error)
            return True
        return "frozen 1" in events or "populated 0" in events

    def limit(self, limits: Limits, controllers: frozenset[str]) -> None:
        """Have the kernel keep those of the limits that the controllers can keep.

        Raises OSError when one of them is not kept after all.
        """
        for name, text in settings_of(limits).items():
            path = self.directory / name
            # A host without swap may be without the file.
            if name.split(".")[0] in controllers and (name != "memory.swap.max" or path.exists()):
                kernel_files.write(path, text)

    def remove(self) -> bool:
        """Remove it and the cgroups below; False while something is left in it."""
        # Most often there are none below, and no need to list it.
        with contextlib.suppress(OSError):
            self.directory.rmdir()
            return True
        for root, _, _ in os.walk(self.directory, topdown=False):
            try:
                Path(root).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


def _unless_gone(error: OSError) -> None:
    """Raise an error unless it says that the cgroup is not there any more."""
    # A file of one that was removed after it was opened; cgroup.procs of a threaded one.
    if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        raise error


def settings_of(limits: Limits) -> dict[str, str]:
    """What to write into which file of a cgroup to have these limits kept."""
    settings: dict[str, str] = {}
    if limits.memory:
        settings["memory.max"] = str(limits.memory)
        # One process killed of a tree leaves a job that nobody can make sense of.
        settings["memory.oom.group"] = "1"
        settings["memory.swap.max"] = "0"
    if limits.cpus:
        settings["cpu.max"] = f"{round(limits.cpus * CPU_PERIOD_US)} {CPU_PERIOD_US}"
    if limits.processes:
        settings["pids.max"] = str(limits.processes)
    if limits.io_weight:
        settings["io.weight"] = f"default {limits.io_weight}"
    return settings
