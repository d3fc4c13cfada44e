"""A remote server's jobs for asyncio: the same as in `sync`, with `await`.

Calls take no thread while they wait; to follow a job takes one.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, Self, Unpack

import grpc
from google.protobuf.message import Message

from jobworker.client.connection import PROMPT_SECONDS, Notice
from jobworker.client.diagnosis import explained
from jobworker.client.errors import CallFailed, ClientError, JobFailed
from jobworker.client.follow import outlast, read_output
from jobworker.client.messages import (
    JobStatus,
    ListOptions,
    Me,
    StartOptions,
    fits,
    list_message,
    read_job,
    read_me,
    start_message,
)
from jobworker.client.outage import PATIENCE_SECONDS
from jobworker.client.outcome import call_failed
from jobworker.client.pieces import Chunk, Piece
from jobworker.client.sync import (
    PAGE_JOBS,
    Client,
    Job,
    Lines,
    Result,
    Stream,
    Word,
    failure_text,
    kept,
    output_request,
)
from jobworker.proto import workerservice_pb2 as pb


class AsyncClient:
    """A server, as one user: use it in an `async with` block. See Client."""

    def __init__(
        self,
        server: str,
        *,
        ca: str | Path,
        cert: str | Path,
        key: str | Path,
        patience: float = PATIENCE_SECONDS,
        notice: Notice = lambda _: None,
    ) -> None:
        """See Client."""
        self.client = Client(server, ca=ca, cert=cert, key=key, patience=patience, notice=notice)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()

    async def start(self, *command: Word, **options: Unpack[StartOptions]) -> "AsyncJob":
        """Start a job, which goes on by itself."""
        request = start_message(command, options)
        reply: pb.StartResponse = await self.call("Start", request, f"the start of {command[:1]}")
        return AsyncJob(self, reply.jobID)

    async def run(
        self,
        *command: Word,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = False,
        **options: Unpack[StartOptions],
    ) -> Result:
        """Start a job, give it `input` to read, and wait for its end. See Client.run."""
        request = start_message(command, options)
        if input is not None:
            request.input = pb.INPUT_MODE_STORED
        job = await self.start(request=request)
        if input is not None:
            await job.send(input, end=True)
        written = {"stdout": bytearray(), "stderr": bytearray()}
        async for piece in job.follow(until_exit=True):
            if isinstance(piece, Chunk):
                written[piece.stream or "stdout"] += piece.data
        status = await job.wait()
        result = Result(status, bytes(written["stdout"]), bytes(written["stderr"]))
        if check and status.exit_code != 0:
            raise JobFailed(failure_text(status), result)
        return result

    async def job(self, job_id: str) -> "AsyncJob":
        """Return the job of an ID, of a unique part of one, or of a name. Asks the server."""
        return AsyncJob(self, (await self.status(job_id)).id)

    async def status(self, job_id: str) -> JobStatus:
        """Return what there is to know of a job."""
        request = pb.QueryStatusRequest(jobID=job_id)
        return read_job(await self.call("QueryStatus", request, f"the job {job_id}"))

    async def jobs(self, **which: Unpack[ListOptions]) -> AsyncIterator[JobStatus]:
        """Yield the jobs that one may see, newest first; `which` chooses among them."""
        request = list_message(which)
        request.pageSize = PAGE_JOBS
        while True:
            page: pb.ListResponse = await self.call("List", request, "the list of jobs")
            for status in page.jobs:
                if fits(status, request):
                    yield read_job(status)
            if not page.nextPageToken:
                return
            request.pageToken = page.nextPageToken

    async def whoami(self) -> Me:
        """Return who the server takes one for."""
        return read_me(await self.call("WhoAmI", pb.WhoAmIRequest(), "the server"))

    async def call(
        self,
        method: str,
        request: Message,
        sought: str,
        *,
        again: bool = True,
        seconds: Callable[[], float | None] = lambda: PROMPT_SECONDS,
    ) -> Any:
        """Make a call of the contract, as Client.call does; `seconds` is how long it may take."""
        client, outage = self.client, self.client.outage()
        while True:
            try:
                answer = await _result(client.service.begin(method, request, seconds()))
            except grpc.RpcError as failed:
                error = call_failed(failed)
                if not (again and client.outlasts(error)):
                    told = await asyncio.to_thread(explained, error, client.endpoint)
                    raise told from failed
                await asyncio.to_thread(outlast, error, outage, client.service, sought)
            else:
                client.has_answered()
                return answer


class AsyncJob:
    """A job of a server's, by its ID. See Job."""

    def __init__(self, client: AsyncClient, job_id: str) -> None:
        """`job_id` is the whole ID."""
        self._client = client
        self.id = job_id

    def __repr__(self) -> str:
        return f"AsyncJob({self.id!r})"

    async def status(self) -> JobStatus:
        """Return what there is to know of it now."""
        return await self._client.status(self.id)

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """Return its status once it has ended. Raises TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        request = pb.WaitRequest(jobID=self.id)
        try:
            sought = f"the end of {self.id}"
            return read_job(await self._client.call("Wait", request, sought, seconds=left))
        except CallFailed as error:
            if error.code == "DEADLINE_EXCEEDED":
                raise TimeoutError(f"job {self.id} goes on after {timeout:g} s") from error
            raise

    async def stop(self, *, grace: float | None = None, wait: bool = True) -> None:
        """End it with all that it started. See Job.stop."""
        request = pb.StopRequest(jobID=self.id, graceSeconds=grace, noWait=not wait)
        await self._client.call("Stop", request, f"the stop of {self.id}", seconds=lambda: None)

    async def signal(self, number: int, *, to_all: bool = False) -> None:
        """Send a signal of Linux to its main process, or to all of its processes."""
        request = pb.SignalRequest(jobID=self.id, signal=number, all=to_all)
        await self._client.call("Signal", request, "", again=False)

    async def remove(self) -> None:
        """Have the server forget it, with its output, once it has ended."""
        await self._client.call("Remove", pb.RemoveRequest(jobID=self.id), "", again=False)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send it input; return when it has arrived. See Job.send."""
        await asyncio.to_thread(Job(self._client.client, self.id).send, data, end=end)

    async def put(self, source: str | PathLike[str], path: str = "") -> None:
        """Put a file into its directory. See Job.put."""
        await asyncio.to_thread(Job(self._client.client, self.id).put, source, path)

    async def get(self, path: str, target: str | PathLike[str] = ".") -> Path:
        """Get a file out of its directory; where it is then. See Job.get."""
        return await asyncio.to_thread(Job(self._client.client, self.id).get, path, target)

    async def output(self, stream: Stream = "both") -> bytes:
        """Return all output that there is now and is kept, without waiting for more."""
        pieces = [piece async for piece in self.follow(stream, wait=False)]
        return b"".join(piece.data for piece in pieces if isinstance(piece, Chunk))

    async def follow(
        self,
        stream: Stream = "both",
        *,
        offset: int = 0,
        wait: bool = True,
        until_exit: bool = False,
    ) -> AsyncIterator[Piece]:
        """Yield its output from `offset` on as it is written. See Job.follow."""
        request = output_request(self.id, stream, offset, wait=wait, until_exit=until_exit)
        client = self._client.client
        end = _End()
        pieces = read_output(client.service, request, client.outage(), end.opened)
        loop = asyncio.get_running_loop()
        # Of its own: as many may follow as want to.
        with contextlib.closing(end), _Thread() as thread:
            while True:
                try:
                    piece = await loop.run_in_executor(thread, next, pieces, None)
                except ClientError as error:
                    raise await asyncio.to_thread(explained, error, client.endpoint) from error
                if piece is None:
                    return
                yield kept(piece)

    async def lines(self, stream: Stream = "both", *, wait: bool = True) -> AsyncIterator[str]:
        """Yield its lines as they are written, without their ends. See Job.lines."""
        lines = Lines()
        async for piece in self.follow(stream, wait=wait):
            for line in lines.of(piece):
                yield line
        for line in lines.rest():
            yield line


class _Thread(ThreadPoolExecutor):
    """One thread, which is not waited for: what it does is being ended."""

    def __init__(self) -> None:
        super().__init__(max_workers=1, thread_name_prefix="jobworker-follow")

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=False)


class _End:
    """Ends what a thread reads, from another one, now or as soon as it begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] = lambda: None
        self._closed = False

    def opened(self, cancel: Callable[[], object]) -> None:
        """There is something to end in this way."""
        with self._lock:
            self._cancel = cancel
            if not self._closed:
                return
        cancel()

    def close(self) -> None:
        """End it, and what is begun after it."""
        with self._lock:
            self._closed = True
        self._cancel()


async def _result(call: "grpc.Future[Any]") -> Any:
    """Await a call of gRPC's; it is cancelled where this is."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell_loop(_: object) -> None:
        # The loop may have ended before the call.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell)

    call.add_done_callback(tell_loop)
    try:
        await ended
    except asyncio.CancelledError:
        call.cancel()
        raise
    return call.result()
