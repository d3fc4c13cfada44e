"""Files that come with a start: kept until a porter has put them into the job's directory."""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from jobworker.supervisor.errors import CannotPlace, Exhausted, SupervisorError, fitting
from jobworker.supervisor.exact_text import legible, to_bytes
from jobworker.supervisor.host.disk_space import FreeSpace
from jobworker.supervisor.job import Job, Request, State, Upload
from jobworker.supervisor.porter.carriage import Carriage, Parcel
from jobworker.supervisor.porter.porter import MAX_DATA
from jobworker.supervisor.porter.porters import Porters

log = logging.getLogger(__name__)

# In a job's directory, beside its segments: 0, 1, ...
KEPT = "uploads"
# All of them together, also where the job's directory is on a network.
PUT_SECONDS = 60.0


class Uploads:
    """Those of jobs whose programs are not executed yet, in their directories in `output`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, porters: Porters, output: Path, space: FreeSpace
    ) -> None:
        """The `space` is what they may take of the disk."""
        self._loop = loop
        self._porters = porters
        self._output = output
        self._space = space
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def keep(self, request: Request, files: Sequence[bytes]) -> None:
        """Keep what they hold. Raises Exhausted."""
        size = sum(map(len, files))
        if size > self._space.left():
            raise Exhausted("the disk of the service has no room for the files of the job")
        try:
            directory = self._directory(request)
            # As the recorder makes it.
            directory.parent.mkdir(mode=0o750, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
            for number, data in enumerate(files):
                (directory / str(number)).write_bytes(data)
        except OSError as error:
            self.drop(request)
            raise fitting(error) from error
        self._space.take(size)

    def kept_bytes(self, request: Request) -> int:
        """How many bytes are kept for a job."""
        if not request.uploads or not self._directory(request).is_dir():
            return 0
        return sum(one.size for one in request.uploads)

    def drop(self, request: Request) -> None:
        """Keep them no longer."""
        if request.uploads:
            shutil.rmtree(self._directory(request), ignore_errors=True)
            with contextlib.suppress(OSError):
                # Unless there is output.
                self._directory(request).parent.rmdir()

    def forget(self, job: Job) -> None:
        """A job has ended, or waits on without a process."""
        task = self._tasks.pop(job.id, None)
        if task is not None:
            task.cancel()
        # One that waits is launched later, or is told so once more.
        over = job.state is State.STARTING and not job.request.waiting.queue
        if over or job.state is State.ENDED:
            self.drop(job.request)

    def put(
        self, job: Job, then: Callable[[], None], failed: Callable[[SupervisorError], None]
    ) -> None:
        """Have them put into the job's directory, then call `then`, or else `failed`."""
        task = self._loop.create_task(self._put(job, then, failed))
        self._tasks[job.id] = task

    async def _put(
        self, job: Job, then: Callable[[], None], failed: Callable[[SupervisorError], None]
    ) -> None:
        try:
            await self._put_all(job)
        except Exception as error:
            if not isinstance(error, SupervisorError):
                log.exception("job %s: its files could not be put", job.id)
            self._tasks.pop(job.id, None)
            failed(error if isinstance(error, SupervisorError) else fitting(error))
            return
        self._tasks.pop(job.id, None)
        then()

    async def _put_all(self, job: Job) -> None:
        directory = self._directory(job.request)
        if not directory.is_dir():
            if job.attempts:
                # They were there for the first of them.
                return
            raise CannotPlace("the files that came with the start were lost with the host's power")
        for number, upload in enumerate(job.request.uploads):
            try:
                async with asyncio.timeout(PUT_SECONDS):
                    await self._put_one(job, upload, (directory / str(number)).read_bytes())
            except (SupervisorError, TimeoutError, OSError) as error:
                why = str(error) or f"it took more than {PUT_SECONDS:g} s"
                words = f"the file {legible(upload.name)} could not be put into {job.request.cwd}"
                raise CannotPlace(f"{words}: {why}") from error

    async def _put_one(self, job: Job, upload: Upload, data: bytes) -> None:
        connection = self._porters.start_before(job)
        carriage = await Carriage.over(connection)
        try:
            name = to_bytes(upload.name)
            parcel = Parcel(b"", name, upload.mode, upload.size, upload.sha256)
            begin = await carriage.begin_put(parcel)
            for offset in range(begin, len(data), MAX_DATA):
                await carriage.carry(data[offset : offset + MAX_DATA])
            await carriage.end_put()
        finally:
            carriage.close()

    def _directory(self, request: Request) -> Path:
        return self._output / request.id / KEPT
