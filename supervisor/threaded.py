"""Running jobs from a Python program without asyncio."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Self, TypeVar

from jobworker.supervisor.errors import NotOpen, SupervisorUnavailable
from jobworker.supervisor.host.limits import NO_LIMITS, Limits
from jobworker.supervisor.ipc.snapshot import JobSnapshot
from jobworker.supervisor.job import AS_EVER, DEFAULT_STOP, StopWay
from jobworker.supervisor.library import EVERYTHING, AsyncJob, AsyncJobWorker, Text
from jobworker.supervisor.output.follow import Selection
from jobworker.supervisor.output.reader import Chunk, Gap

_T = TypeVar("_T")


class Job:
    """AsyncJob for programs without asyncio; see there."""

    def __init__(self, worker: "JobWorker", job: AsyncJob) -> None:
        self._worker = worker
        self._job = job
        self.id = job.id

    def status(self) -> JobSnapshot:
        """The job as it is now. Raises NoSuchJob."""
        return self._worker.run(self._job.status())

    def wait(self) -> JobSnapshot:
        """The job once its main process has ended."""
        return self._worker.run(self._job.wait())

    def stop(self, grace: float | None = None, way: StopWay = AS_EVER) -> JobSnapshot:
        """End the whole tree; returns when none of it is left."""
        return self._worker.run(self._job.stop(grace, way))

    def signal(self, number: int, *, to_all: bool = False) -> None:
        """Signal the main process, or every process of the job. Raises AlreadyEnded."""
        self._worker.run(self._job.signal(number, to_all=to_all))

    def pause(self) -> None:
        """Have every process stand still, until `resume` or a stop; a timeout goes on.

        Raises AlreadyEnded and NotRunning.
        """
        self._worker.run(self._job.pause())

    def resume(self) -> None:
        """Have a paused job go on. Raises AlreadyEnded and NotRunning."""
        self._worker.run(self._job.resume())

    def output(self, selection: Selection = EVERYTHING) -> Iterator[Chunk | Gap]:
        """The output, by default from its first byte to its end; gaps in place of what is gone."""
        pieces = self._job.output(selection)
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield self._worker.run(_next(pieces))
        finally:
            self._worker.dismiss(pieces)


async def _next(pieces: AsyncGenerator[Chunk | Gap]) -> Chunk | Gap:
    return await anext(pieces)


class JobWorker:
    """AsyncJobWorker for programs without asyncio: its event loop runs in a thread of its own."""

    def __init__(self, state_dir: str | os.PathLike[str], **settings: object) -> None:
        """`settings` are the fields of SupervisorConfig."""
        self._worker = AsyncJobWorker(state_dir, **settings)
        self._entered = False

    def run(self, coroutine: Coroutine[object, object, _T]) -> _T:
        """Run it on the worker's loop and give its result. Raises NotOpen out of the block."""
        try:
            self._worker.check_open()
        except NotOpen:
            coroutine.close()
            raise
        return self._call(coroutine)

    def _call(self, coroutine: Coroutine[object, object, _T], *, opening: bool = False) -> _T:
        call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return call.result()
        except (CancelledError, SupervisorUnavailable):
            # The block may have ended while this waited in another thread. Of one that
            # could not even begin, the reason is the better error.
            if not opening:
                self._worker.check_open()
            raise
        except BaseException:
            # Such as KeyboardInterrupt, which reaches this thread alone.
            call.cancel()
            raise

    def dismiss(self, pieces: AsyncGenerator[object]) -> None:
        """Have a generator end on the worker's loop, without waiting for it."""
        with contextlib.suppress(NotOpen):
            self._worker.check_open()
            asyncio.run_coroutine_threadsafe(_close(pieces), self._loop)

    def __enter__(self) -> Self:
        if self._entered:
            raise NotOpen("a worker is entered once: make another one")
        self._entered = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._call(self._worker.__aenter__(), opening=True)
        except BaseException:
            self._call(self._worker.close())
            self._end_loop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._worker.forked:
            # The block is the parent's to end, and so is the loop.
            return
        try:
            self._call(self._worker.__aexit__(kind, error, traceback))
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        # Other threads may wait for something still.
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(
        self,
        argv: Sequence[Text],
        *,
        env: Mapping[str, Text] | None = None,
        cwd: Text | None = None,
        grace: float | None = None,
        limits: Limits = NO_LIMITS,
        stop: StopWay = DEFAULT_STOP,
    ) -> Job:
        """Run a program; see AsyncJobWorker.start."""
        started = self._worker.start(argv, env=env, cwd=cwd, grace=grace, limits=limits, stop=stop)
        return Job(self, self.run(started))

    def job(self, job_id: str) -> Job:
        """A job of this or an earlier run of the program, by its ID."""
        return Job(self, self._worker.job(job_id))

    def list(self, *, running: bool = False, limit: int = 100) -> "list[JobSnapshot]":
        """At most `limit` (1 to 1000) jobs, newest first."""
        return self.run(self._worker.list(running=running, limit=limit))


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _close(pieces: AsyncGenerator[object]) -> None:
    await pieces.aclose()
