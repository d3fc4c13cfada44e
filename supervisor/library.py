"""Running jobs from a Python program with asyncio: no server, no gRPC, the same supervisor."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakSet

import msgspec

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.control import SUPERVISOR_TARGET, spawn_keeper
from jobworker.supervisor.errors import NotOpen, SupervisorUnavailable
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

# An argument, a path, the value of a variable.
Text = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class _Phase(Enum):
    NEW = "not entered yet"
    OPEN = "within its block"
    ENDED = "after its block"


# Those that are open in this process; a fork has them, too, but not their service.
_workers: "WeakSet[AsyncJobWorker]" = WeakSet()


def _leave_to_parent() -> None:
    for worker in _workers:
        worker.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


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
        return await self._worker.client.end(self.id, grace, way)

    async def signal(self, number: int, *, to_all: bool = False) -> None:
        """Signal the main process, or every process of the job. Raises AlreadyEnded."""
        await self._worker.client.signal(self.id, number, to_all=to_all)

    async def pause(self) -> None:
        """Have every process stand still, until `resume` or a stop; a timeout goes on.

        Raises AlreadyEnded and NotRunning.
        """
        await self._worker.client.pause(self.id)

    async def resume(self) -> None:
        """Have a paused job go on. Raises AlreadyEnded and NotRunning."""
        await self._worker.client.resume(self.id)

    async def output(self, selection: Selection = EVERYTHING) -> AsyncGenerator[Chunk | Gap]:
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
        self._phase = _Phase.NEW
        self._client: SupervisorClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    @property
    def client(self) -> SupervisorClient:
        """What talks to the supervisor. Raises NotOpen where that cannot be done."""
        self.check_open()
        if asyncio.get_running_loop() is not self._loop:
            raise NotOpen(
                "this worker belongs to the event loop it was entered on, and this is another: "
                "use it there, or a JobWorker, which has a loop of its own"
            )
        assert self._client is not None  # noqa: S101 - there is one while it is open
        return self._client

    def check_open(self) -> None:
        """Raise NotOpen outside of the `with` block, and in a process forked within it."""
        if self._phase is _Phase.NEW:
            raise NotOpen(
                "this worker is not open yet: use it within a block, "
                "`with JobWorker(...) as worker:` (`async with` for AsyncJobWorker)"
            )
        if self._phase is _Phase.ENDED:
            raise NotOpen(
                "this worker ended with its `with` block: its records are in "
                f"{self._config.state_dir}, which a new one opens again"
            )
        if self.forked:
            raise NotOpen(
                "this process was forked from the one that opened the worker: use it there, "
                "or open one here, with a state_dir of its own"
            )

    @property
    def forked(self) -> bool:
        """Whether this is a fork (os.fork) of the process that opened the worker."""
        return os.getpid() != self._process

    def leave_to_parent(self) -> None:
        """In a forked child, let go of what makes the service live as long as the process."""
        if self._client is not None:
            self._client.abandon()

    async def __aenter__(self) -> Self:
        if self._phase is not _Phase.NEW:
            raise NotOpen("a worker is entered once: make another one")
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        ours, theirs = packets.pair()
        config = KeeperConfig(
            self._config.state_dir,
            ServiceConfig(SUPERVISOR_TARGET, msgspec.json.encode(self._config).decode()),
            None,
            theirs.fileno(),
            {},
        )
        try:
            with theirs:
                self._keeper = spawn_keeper(config)
        except BaseException:
            ours.close()
            raise
        self._client = SupervisorClient(ours)
        self._client.open()
        self._phase = _Phase.OPEN
        _workers.add(self)
        try:
            await self._ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def _ready(self) -> None:
        """Wait for the first answer, or for the keeper's refusal."""
        probe = asyncio.ensure_future(self.client.list(ipc.List(limit=1)))
        gone = asyncio.ensure_future(self.client.keeper_gone())
        await asyncio.wait({probe, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not probe.done():
            probe.cancel()
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
        await self.close()

    async def close(self) -> None:
        """Close the keeper's socket, which tells it to stop, and wait for it.

        Does nothing outside of the block, nor in a forked child.
        """
        if self._phase is not _Phase.OPEN or self.forked:
            return
        self._phase = _Phase.ENDED
        _workers.discard(self)
        if self._client is not None:
            self._client.close()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.wait)

    def output_directory(self, job_id: str) -> Path:
        """Where a job's segments are."""
        return Path(self._config.state_dir) / "output" / job_id

    async def start(
        self,
        argv: Sequence[Text],
        *,
        env: Mapping[str, Text] | None = None,
        cwd: Text | None = None,
        grace: float | None = None,
        limits: Limits = NO_LIMITS,
        stop: StopWay = DEFAULT_STOP,
    ) -> AsyncJob:
        """Run a program. Raises CannotExecute with the errno of what failed.

        What is not UTF-8 in a text is as os.fsdecode gives it, or bytes.
        Raises CannotPlace for limits that this host cannot keep. `stop` is how a
        stop of it begins.
        """
        request = pb.StartRequest(
            rawArguments=_arguments(argv),
            rawEnvironment=[
                pb.RawVariable(
                    name=_bytes("the name of a variable", name),
                    value=_bytes(f"the variable {name}", value),
                )
                for name, value in (env or {}).items()
            ],
            rawWorkingDirectory=_bytes("cwd", cwd or self._config.working_directory),
            graceSeconds=self._config.grace_seconds if grace is None else grace,
            timeoutSeconds=limits.timeout,
            limits=limits_message(limits),
            stopSignal=stop.signal,
            stopMode=pb.StopMode.Name(stop.mode),
        )
        order = ipc.Start(id=await self.client.new_id(), owner=OWNER, request=request)
        return AsyncJob(self, (await self.client.start(order)).id)

    def job(self, job_id: str) -> AsyncJob:
        """A job of this or an earlier run of the program, by its ID."""
        return AsyncJob(self, job_id)

    async def list(self, *, running: bool = False, limit: int = 100) -> "list[JobSnapshot]":
        """At most `limit` (1 to 1000) jobs, newest first."""
        return await self.client.list(ipc.List(running=running, limit=limit))


def _arguments(argv: Sequence[Text]) -> list[bytes]:
    """The program and its arguments. Raises TypeError for one text in place of many."""
    if isinstance(argv, str | bytes | os.PathLike):
        raise TypeError(
            f"argv is a list such as {_split(argv)!r}, not the one text {argv!r}: "
            'no shell reads it; for one, start ["sh", "-c", ...]'
        )
    return [_bytes(f"argv[{place}]", word) for place, word in enumerate(argv)]


def _split(text: Text) -> list[str]:
    return os.fsdecode(text).split() or ["true"]


def _bytes(what: str, text: Text) -> bytes:
    plain = os.fspath(text) if isinstance(text, os.PathLike) else text
    if isinstance(plain, str):
        return to_bytes(plain)
    if isinstance(plain, bytes):
        return plain
    raise TypeError(f"{what} is {text!r}, of type {type(text).__name__}: it must be a text")
