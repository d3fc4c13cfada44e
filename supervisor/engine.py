"""The seam below the core: how a job becomes processes, here or elsewhere.

The core decides what is to happen to a job and puts it on record; an engine
makes it happen, and reports. `local` is the engine of this host. What an engine
must know of a job to find it again, also after the death of this process, it
writes into the job's `engine_record`, which nobody else reads.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from jobworker.supervisor.errors import SupervisorError
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.job import InputPiece, Job, Reason, Received, Request, StopWay

# Told how far the input is, or why it cannot be kept.
InputAnswer = Callable[[Received | SupervisorError], None]


class Exit(NamedTuple):
    """How a job's main process ended: `code` is -N for signal N.

    `out_of_memory` says that the kernel has killed processes of the job for lack
    of memory; `recorded` is to be called once the end is on record: until then
    the engine tells of it again to whoever comes after this process. A `reason`, and
    `detail` in words, is there where others than us have ended it.
    """

    code: int
    usage: Usage
    out_of_memory: bool
    recorded: Callable[[], None]
    reason: Reason = Reason.NONE
    detail: str = ""


class Reports(Protocol):
    """What an engine tells the core, never from within a call of the core's but `launch`."""

    def accepted(self, job: Job) -> None:
        """It will execute, but who knows when: its start is answered, it has not failed."""

    def executed(self, job: Job) -> None:
        """The program executes."""

    def failed(self, job: Job, error: SupervisorError) -> None:
        """It does not, and never will: the job is to leave no trace."""

    def noted(self, job: Job) -> None:
        """The engine's record of the job has changed; a start need not wait for the disk."""

    def exited(self, job: Job, how: Exit) -> None:
        """The main process of a job that executed has ended."""

    def grew(self, job: Job) -> None:
        """There is more output, or all that the main process wrote is on record."""

    def complete(self, job: Job) -> None:
        """There will be no more output."""

    def overflowed(self, job: Job) -> None:
        """The output has reached a limit at which the job is to be stopped."""

    def paused(self, job: Job) -> None:
        """A pause has come to its end: nothing of the job's tree moves, as far as can be had."""

    def stopped(self, job: Job) -> None:
        """A stop has come to its end: nothing is left of the job's tree."""


class Engine(Protocol):
    """What the core asks of an engine. Jobs are told apart by their IDs."""

    def report_to(self, reports: Reports) -> None:
        """Tell these from here on what becomes of jobs. To be called first."""

    def place(self, request: Request) -> Request:
        """The request with all that it left open.

        Raises InvalidRequest and CannotPlace; AlreadyEnded for one within a job that has.
        """

    def prepare(self, job: Job) -> None:
        """Note in a job that is about to be recorded by what its start is found again.

        Raises CannotPlace where its output could not be kept.
        """

    def keep_files(self, request: Request, files: Sequence[bytes]) -> None:
        """Keep what the uploads of a job hold, until they are put into its directory.

        Raises Exhausted where the disk has no room.
        """

    def drop_files(self, request: Request) -> None:
        """Keep them no longer."""

    def launch(self, job: Job) -> None:
        """Have a job execute that is on record: `executed` or `failed` is reported, or both not."""

    def knows(self, job: Job) -> bool:
        """Whether a job that another supervisor has left goes on; otherwise it is lost."""

    def take_up(self, job: Job) -> None:
        """Go on with such a job, from wherever it was left."""

    def clean_up(self, lost: Iterable[Job]) -> None:
        """End what is left of these jobs, and of what was never on record."""

    def give_up_after(self, job: Job, seconds: float) -> None:
        """Wait no longer than that for a launch: it is reported as failed then."""

    def signal(self, job: Job, number: int, *, to_all: bool) -> None:
        """Signal the program, or all processes. Raises ProcessLookupError where none is left."""

    def stop(self, job: Job, grace: float, way: StopWay) -> None:
        """End the job's tree: a signal, SIGKILL after `grace` seconds; `stopped` is reported.

        A stop in progress is only ever hastened; it sends another signal if another
        way is asked for. Also for a job that has ended, for what that left behind.
        """

    def give(
        self, job: Job, piece: InputPiece, answer: Callable[[Received | SupervisorError], None]
    ) -> None:
        """Give a job input, and answer when it is safe, or after a while with how far that is.

        An error is the answer where it cannot be kept.
        Raises ValueError for a piece that leaves a gap, LookupError for a job that takes none.
        """

    def stored_input(self, job: Job) -> int:
        """How many bytes are kept on disk of what the job has been sent, files included."""

    def resize(self, job: Job, rows: int, columns: int) -> None:
        """Set the size of the job's terminal. Raises LookupError where it has none."""

    def check_can_pause(self) -> None:
        """Raise CannotPlace where no job can be had to stand still."""

    def pause(self, job: Job) -> None:
        """Have every process of a job that is PAUSED stand still; `paused` is reported.

        Also of one that does already. A stop lets them go on, and so does the job's end.
        """

    def resume(self, job: Job) -> None:
        """Let them go on, as they do unless there was a pause. Raises OSError."""

    async def connect(self, job: Job, port: int) -> socket.socket:
        """A connection to a TCP port at which a process of the job listens; it does not block.

        To nothing else that listens there. Raises NothingListens and Exhausted.
        """

    async def porter(self, job: Job, *, put: bool) -> socket.socket:
        """A porter for one file of the job's, and the socket to speak to it; it does not block.

        It is the job's user, in the job's mounts. Raises AlreadyEnded where nothing is left of
        those, CannotPlace and Exhausted.
        """

    def usage(self, job: Job) -> Usage:
        """What the job has used by now, as far as that can be told."""

    def output_open(self, job: Job) -> bool:
        """Whether there may be more output."""

    def vacant(self, job: Job) -> bool | None:
        """Whether nothing lives any more where the job did; None where that cannot be told."""

    def clear(self, job: Job) -> bool:
        """Remove the place of a job that is vacant; False while that cannot be done."""

    def forget(self, job: Job) -> None:
        """Let go of everything that is held for a job."""
