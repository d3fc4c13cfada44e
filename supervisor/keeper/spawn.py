"""Making a process that executes a program: natively where that was built, by fork(2) elsewhere.

Both ways do the same, in the same order, and tell failures the same way: the
`report` socket, closed on exec, ends without a word when the program executes;
else (errno, step) come first. spawn.c is the native way, forked.py the other;
docs/decisions/0006-native-spawn.md has the reasons.
"""

import errno
import os
from collections.abc import Sequence

from jobworker.supervisor.keeper import forked
from jobworker.supervisor.keeper.program import Program

try:
    from jobworker.supervisor.keeper import _spawn
except ImportError:
    # There was no compiler when this was installed, or it is another machine's.
    BUILT = False
else:
    BUILT = True

# For tests: "python" has the other way taken where the native one could be.
WAY_VARIABLE = "JOBWORKER_SPAWN"
# What the kernel, or a sandbox around the service, says that does not know clone3(2) and its flags.
_NOT_HERE = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EOPNOTSUPP)


class Spawner:
    """Makes processes. Make one while descriptors are few: it keeps some low ones in a row."""

    def __init__(self) -> None:
        self._slots = _reserve(_spawn.SLOTS) if way() == "native" else -1

    @property
    def native(self) -> bool:
        """Whether processes are made without copying this one."""
        return self._slots >= 0

    def spawn(
        self, program: Program, files: Sequence[int], report: int, cgroup: str = ""
    ) -> tuple[int, int]:
        """Make the process; its PID, and a pidfd which is the caller's.

        `files` (3 to 6) become its descriptors 0, 1, ..., and it has no others;
        `report` is where it tells a failure, `cgroup` the directory of the cgroup
        it is born in, or empty. Raises OSError when there can be no process.
        """
        if self.native and not program.apart:
            try:
                return self._native(program, (*files, report), cgroup)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                self._slots = -1
        return forked.spawn(program, files, report, cgroup)

    def _native(
        self, program: Program, descriptors: tuple[int, ...], cgroup: str
    ) -> tuple[int, int]:
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if cgroup else -1
        try:
            made: tuple[int, int] = _spawn.spawn(
                descriptors,
                self._slots,
                program.paths,
                program.check,
                program.argv,
                program.environment,
                program.cwd,
                directory,
                program.user,
                program.limits,
                program.no_new_privileges,
                program.umask,
                program.terminal,
            )
            return made
        finally:
            if directory >= 0:
                os.close(directory)


def way() -> str:
    """How processes are made here: "native" or "python"."""
    return "native" if BUILT and os.environ.get(WAY_VARIABLE) != "python" else "python"


def _reserve(count: int) -> int:
    """Occupy so many descriptors in a row, as low as can be, with /dev/null; the first of them."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    taken = {int(entry.name) for entry in os.scandir("/proc/self/fd")}
    first = count
    while any(number in taken for number in range(first, first + count)):
        first += 1
    for number in range(first, first + count):
        os.dup2(null, number, inheritable=False)
    os.close(null)
    return first
