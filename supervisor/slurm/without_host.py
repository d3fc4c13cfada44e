"""What an engine does for jobs of its own host, and this one cannot: each is told in a sentence."""

import socket
from collections.abc import Callable, Sequence

from jobworker.supervisor.errors import CannotPlace, NothingListens, SupervisorError
from jobworker.supervisor.job import InputPiece, Job, Received, Request

_ON_CLUSTER = "this server's jobs run on a Slurm cluster"

_NO_FILES = (
    f"{_ON_CLUSTER}, which cannot carry files for a job: use the file system that the nodes share"
)


class WithoutHost:
    """The part of an Engine for jobs whose processes, descriptors and cgroups are elsewhere."""

    def keep_files(self, request: Request, files: Sequence[bytes]) -> None:
        """As in Engine."""
        raise CannotPlace(_NO_FILES)

    def drop_files(self, request: Request) -> None:
        """As in Engine: there are none."""

    def check_can_pause(self) -> None:
        """As in Engine."""
        raise CannotPlace(f"{_ON_CLUSTER}, which cannot pause a job")

    def pause(self, job: Job) -> None:
        """As in Engine: it is never asked for."""

    def resume(self, job: Job) -> None:
        """As in Engine: there is no pause to end."""

    def give(
        self, job: Job, piece: InputPiece, answer: Callable[[Received | SupervisorError], None]
    ) -> None:
        """As in Engine."""
        raise LookupError

    def stored_input(self, job: Job) -> int:
        """As in Engine."""
        return 0

    def resize(self, job: Job, rows: int, columns: int) -> None:
        """As in Engine."""
        raise LookupError

    async def connect(self, job: Job, port: int) -> socket.socket:
        """As in Engine."""
        raise NothingListens(f"{_ON_CLUSTER}: there is no way from here to their ports")

    async def porter(self, job: Job, *, put: bool) -> socket.socket:
        """As in Engine."""
        raise CannotPlace(_NO_FILES)

    def clear(self, job: Job) -> bool:
        """As in Engine."""
        return True
