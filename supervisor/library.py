"""Running jobs from a Python program: no server, no gRPC, the same supervisor."""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import uuid_utils

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.control import SUPERVISOR_TARGET, spawn_keeper
from jobworker.supervisor.errors import SupervisorUnavailable
from jobworker.supervisor.exact_text import to_bytes
from jobworker.supervisor.host.limits import NO_LIMITS, Limits
from jobworker.supervisor.ipc.client import SupervisorClient
from jobworker.supervisor.ipc.messages import limits_message
from jobworker.supervisor.ipc.snapshot import JobSnapshot
from jobworker.supervisor.job import AS_EVER, DEFAULT_STOP, StopWay
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.config import KeeperConfig, ServiceConfig
from jobworker.supervisor.output.follow import Selection, follow
from jobworker.supervisor.output.reader import Chunk, Gap

# What owns the jobs of a program that uses the library.
OWNER = "library"
EVERYTHING = Selection()

_T = TypeVar("_T")


class AsyncJob:
    """A job started by, or found with, an AsyncJobWorker."""

    def __init__(self, worker: "AsyncJobWorker", job_id: str) -> None:
        self._worker = worker
        self.id = job_id

    async def status(self) -> JobSnapshot:
        """The job as it is now. Raises NoSuchJob."""
        return await self._worker.client.get(self.id)

    async def wait(self) -> JobSnapshot:
        """The job once its main process has ended."""
        async with self._worker.client.watch(self.id) as watched:
            return await watched.until(lambda job: job.ended)

    async def stop(self, grace: float | None = None, way: StopWay = AS_EVER) -> JobSnapshot:
        """End the whole tree, in `grace` seconds at most; returns when none of it is left.

        It begins with the signal, for the processes, that `way` says, or the job's own.
        """
        async with self._worker.client.watch(self.id) as watched:
            await self._worker.client.stop(self.id, grace, way)
            return await watched.until(lambda job: job.ended and job.gone)

    async def signal(self, number: int, *, to_all: bool = False) -> None:
        """Signal the main process, or every process of the job. Raises AlreadyEnded."""
        await self._worker.client.signal(self.id, number, to_all=to_all)

    async def output(self, selection: Selection = EVERYTHING) -> AsyncIterator[Chunk | Gap]:
        """The output, by default from its first byte to its end; gaps in place of what is gone."""
        async with self._worker.client.watch(self.id) as watched:
            directory = self._worker.output_directory(self.id)
            async for piece in follow(watched, directory, selection):
                yield piece


class AsyncJobWorker:
    """A supervisor of this program's own, with its records in `state_dir`.

    Leaving the context stops every job with its grace and ends the service; so
    does the death of this process. Raises StateError when another service uses
    the directory.
    """

    def __init__(self, state_dir: str | os.PathLike[str], **settings: object) -> None:
        """`settings` are the fields of SupervisorConfig."""
        values = {"state_dir": str(Path(state_dir).absolute()), **settings}
        self._config = msgspec.convert(values, SupervisorConfig)
        self._keeper: subprocess.Popen[bytes] | None = None
        self.client: SupervisorClient

    async def __aenter__(self) -> Self:
        ours, theirs = packets.pair()
        config = KeeperConfig(
            self._config.state_dir,
            ServiceConfig(SUPERVISOR_TARGET, msgspec.json.encode(self._config).decode()),
            None,
            theirs.fileno(),
            {},
        )
        with theirs:
            self._keeper = spawn_keeper(config)
        self.client = SupervisorClient(ours)
        self.client.open()
        await self._ready()
        return self

    async def _ready(self) -> None:
        """Wait for the first answer, or for the keeper's refusal."""
        probe = asyncio.ensure_future(self.client.list(ipc.List(limit=1)))
        gone = asyncio.ensure_future(self.client.keeper_gone())
        await asyncio.wait({probe, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not probe.done():
            probe.cancel()
            await self._close()
            raise SupervisorUnavailable(
                f"no supervisor could be started on {self._config.state_dir}: "
                "the lines above from the keeper say why"
            )
        await probe

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        """Close the keeper's socket, which tells it to stop, and wait for it."""
        keeper = self._keeper
        self.client.close()
        if keeper is not None:
            await asyncio.to_thread(keeper.wait)

    def output_directory(self, job_id: str) -> Path:
        """Where a job's segments are."""
        return Path(self._config.state_dir) / "output" / job_id

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        grace: float | None = None,
        limits: Limits = NO_LIMITS,
        stop: StopWay = DEFAULT_STOP,
    ) -> AsyncJob:
        """Run a program. Raises CannotExecute with the errno of what failed.

        What is not UTF-8 in a text is as os.fsdecode gives it.
        Raises CannotPlace for limits that this host cannot keep. `stop` is how a
        stop of it begins.
        """
        request = pb.StartRequest(
            rawArguments=map(to_bytes, argv),
            rawEnvironment=[
                pb.RawVariable(name=to_bytes(name), value=to_bytes(value))
                for name, value in (env or {}).items()
            ],
            rawWorkingDirectory=to_bytes(cwd or self._config.working_directory),
            graceSeconds=self._config.grace_seconds if grace is None else grace,
            timeoutSeconds=limits.timeout,
            limits=limits_message(limits),
            stopSignal=stop.signal,
            stopMode=pb.StopMode.Name(stop.mode),
        )
        order = ipc.Start(id=str(uuid_utils.uuid7()), owner=OWNER, request=request)
        return AsyncJob(self, (await self.client.start(order)).id)

    def job(self, job_id: str) -> AsyncJob:
        """A job of this or an earlier run of the program, by its ID."""
        return AsyncJob(self, job_id)

    async def list(self, *, running: bool = False, limit: int = 100) -> "list[JobSnapshot]":
        """At most `limit` (1 to 1000) jobs, newest first."""
        return await self.client.list(ipc.List(running=running, limit=limit))


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

    def output(self, selection: Selection = EVERYTHING) -> Iterator[Chunk | Gap]:
        """The output, by default from its first byte to its end; gaps in place of what is gone."""
        pieces = self._job.output(selection)
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._worker.run(_next(pieces))


async def _next(pieces: AsyncIterator[Chunk | Gap]) -> Chunk | Gap:
    return await anext(pieces)


class JobWorker:
    """AsyncJobWorker for programs without asyncio: its event loop runs in a thread of its own."""

    def __init__(self, state_dir: str | os.PathLike[str], **settings: object) -> None:
        """`settings` are the fields of SupervisorConfig."""
        self._worker = AsyncJobWorker(state_dir, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, coroutine: Coroutine[object, object, _T]) -> _T:
        """Run it on the worker's loop and give its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._worker.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.run(self._worker.__aexit__(kind, error, traceback))
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
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
