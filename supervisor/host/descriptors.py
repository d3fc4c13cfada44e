"""How many files the service may still open, and whether that is enough for another job."""

import os
import resource

from jobworker.supervisor.errors import Exhausted

# What a job needs at most, here or in the keeper: the ends of its pipes, its process,
# what tells of its start and from its sandbox, two files of its output.
JOB_DESCRIPTORS = 8
# Left for what must go on: stops, exits, answers, the journal, clients that connect,
# and in the keeper another supervisor and front.
RESERVE = 64


class Descriptors:
    """Counts those of this process and of the keeper, its parent, no more often than it takes.

    Both have the same limit, as the one inherits it from the other.
    """

    def __init__(self) -> None:
        # So many more jobs there is room for, at the least.
        self._jobs = 0

    def check(self, starting: int) -> None:
        """Take the room for a job; `starting` have taken theirs and may not have opened it all.

        Raises Exhausted where it would take the last descriptors.
        """
        if self._jobs <= 0:
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = max(_used("self"), _used(str(os.getppid())))
            self._jobs = (allowed - used - RESERVE) // JOB_DESCRIPTORS - starting
            if self._jobs <= 0:
                raise Exhausted(
                    f"the service has {used} of {allowed} files open and {starting} jobs are "
                    "starting, which leaves too few for another: try again later, stop some, or "
                    "raise the limit (LimitNOFILE= in systemd, ulimit -n in a shell)"
                )
        self._jobs -= 1


def _used(process: str) -> int:
    """How many descriptors a process has open; 0 where that is not to be seen."""
    try:
        return len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208 - the names are enough
    except (PermissionError, FileNotFoundError):
        return 0
