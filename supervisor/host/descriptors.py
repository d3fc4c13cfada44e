"""How many files this process may still open, and whether that is enough for another job."""

import os
import resource

from jobworker.supervisor.errors import Exhausted

# What a job needs at most while it is launched: both ends of its pipes and of the socket of
# its launch, its program and what a sandbox is given; later less, and two files of its output.
JOB_DESCRIPTORS = 12
# Left for what must go on: stops, exits, answers, the journal, clients that connect.
RESERVE = 64


class Descriptors:
    """Counts the descriptors of this process, but no more often than it takes."""

    def __init__(self) -> None:
        # So many more jobs there is room for, at the least.
        self._jobs = 0

    def check(self, starting: int) -> None:
        """Take the room for a job; `starting` have taken theirs and may not have opened it all.

        Raises Exhausted where it would take the last descriptors.
        """
        if self._jobs <= 0:
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            free = allowed - len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names do
            self._jobs = (free - RESERVE) // JOB_DESCRIPTORS - starting
            if self._jobs <= 0:
                raise Exhausted(
                    f"of the {allowed} files that the service may have open {free} are left, "
                    "which is too few for another job: stop some, or raise the limit "
                    "(LimitNOFILE= in systemd, ulimit -n in a shell)"
                )
        self._jobs -= 1
