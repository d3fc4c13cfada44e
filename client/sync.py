"""A remote server's jobs, for a program: what is public of it is in `jobworker.client`."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, Self, TypeVar, Unpack

from jobworker.client.connection import Notice, connect
from jobworker.client.diagnosis import explained
from jobworker.client.endpoint import DEFAULT_PORT, Endpoint
from jobworker.client.errors import CallFailed, ClientError, JobFailed
from jobworker.client.files import FileSink, get_file, put_file
from jobworker.client.follow import outlast, read_output
from jobworker.client.input import sending
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
from jobworker.client.outage import PATIENCE_SECONDS, Outage
from jobworker.client.pieces import Chunk, Gap, Piece
from jobworker.proto import workerservice_pb2 as pb

T = TypeVar("T")
Word = str | bytes | PathLike[str]
Stream = Literal["both", "stdout", "stderr"]
PAGE_JOBS = 1000
_STREAMS = {
    "both": pb.OUTPUT_STREAM_BOTH,
    "stdout": pb.OUTPUT_STREAM_STDOUT,
    "stderr": pb.OUTPUT_STREAM_STDERR,
}


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended that was run to its end, and the bytes that it wrote to each stream."""

    status: JobStatus
    stdout: bytes
    stderr: bytes


class Client:
    """A server, as one user: use it in a `with` block, or close it. Threads may share it.

    Once the server has answered, a connection that breaks is waited for, up to `patience`
    seconds, and gone on with where it was: a follower at the byte it had come to, a start
    without starting twice. `notice` is told of that, in a sentence.

    Every method raises a ClientError, of the class that says what went wrong.
    """

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
        """`server` is HOST or HOST:PORT, the files are PEM: see Endpoint. Connects to nothing yet.

        Raises BadFile.
        """
        self._stack = ExitStack()
        self.endpoint = endpoint_of(server, ca, cert, key)
        self.service = self._stack.enter_context(connect(self.endpoint, notice))
        self._patience = patience
        self._answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Jobs go on."""
        self._stack.close()

    def start(self, *command: Word, **options: Unpack[StartOptions]) -> "Job":
        """Start a job, which goes on by itself; StartOptions says what it may be told."""
        request = start_message(command, options)
        reply = self.call(lambda: self.service.start(request), f"the start of {command[:1]}")
        return Job(self, reply.jobID)

    def run(
        self,
        *command: Word,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = False,
        **options: Unpack[StartOptions],
    ) -> Result:
        """Start a job, give it `input` to read, and wait for its end.

        Raises JobFailed with `check` if it ends otherwise than with 0.
        """
        request = start_message(command, options)
        if input is not None:
            request.input = pb.INPUT_MODE_STORED
        job = self.start(request=request)
        if input is not None:
            job.send(input, end=True)
        written = {"stdout": bytearray(), "stderr": bytearray()}
        for piece in job.follow(until_exit=True):
            if isinstance(piece, Chunk):
                written[piece.stream or "stdout"] += piece.data
        result = Result(job.wait(), bytes(written["stdout"]), bytes(written["stderr"]))
        if check and result.status.exit_code != 0:
            raise JobFailed(failure_text(result.status), result)
        return result

    def job(self, job_id: str) -> "Job":
        """Return the job of an ID, of a unique part of one, or of a name. Asks the server."""
        return Job(self, self.status(job_id).id)

    def status(self, job_id: str) -> JobStatus:
        """Return what there is to know of a job."""
        return read_job(self.call(lambda: self.service.status(job_id), f"the job {job_id}"))

    def jobs(self, **which: Unpack[ListOptions]) -> Iterator[JobStatus]:
        """Yield the jobs that one may see, newest first; `which` chooses among them."""
        request = list_message(which)
        request.pageSize = PAGE_JOBS
        while True:
            page = self.call(lambda: self.service.list(request), "the list of jobs")
            yield from (read_job(job) for job in page.jobs if fits(job, request))
            if not page.nextPageToken:
                return
            request.pageToken = page.nextPageToken

    def whoami(self) -> Me:
        """Return who the server takes one for."""
        return read_me(self.call(self.service.whoami, "the server"))

    def call(self, call: Callable[[], T], sought: str, *, again: bool = True) -> T:
        """Make a call, `again` while the connection is broken; `sought` is what for, in words."""
        outage = self.outage()
        while True:
            try:
                answer = call()
            except CallFailed as error:
                if not (again and self.outlasts(error)):
                    raise explained(error, self.endpoint) from error
                outlast(error, outage, self.service, sought)
            else:
                self.has_answered()
                return answer

    def has_answered(self) -> None:
        """The server is there: from now on a broken connection is waited for."""
        self._answered = True

    def outage(self) -> Outage:
        """Return how long to wait for a connection that breaks from now on."""
        return Outage(self._patience)

    def outlasts(self, error: CallFailed) -> bool:
        """Whether to wait after an error: a server that was never there is told of at once."""
        return self._answered and error.code == "UNAVAILABLE"


class Job:
    """A job of a server's, by its ID. It is there whether or not anybody holds this."""

    def __init__(self, client: Client, job_id: str) -> None:
        """`job_id` is the whole ID."""
        self._client = client
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> JobStatus:
        """Return what there is to know of it now."""
        return self._client.status(self.id)

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Return its status once it has ended. Raises TimeoutError after `timeout` seconds."""
        client = self._client
        deadline = None if timeout is None else time.monotonic() + timeout

        def wait() -> pb.QueryStatusResponse:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return client.service.wait(pb.WaitRequest(jobID=self.id), left)

        try:
            return read_job(client.call(wait, f"the end of {self.id}"))
        except CallFailed as error:
            if error.code == "DEADLINE_EXCEEDED":
                raise TimeoutError(f"job {self.id} goes on after {timeout:g} s") from error
            raise

    def stop(self, *, grace: float | None = None, wait: bool = True) -> None:
        """End it with all that it started: a signal, `grace` seconds, SIGKILL.

        Without `wait` return as soon as that is under way.
        """
        request = pb.StopRequest(jobID=self.id, graceSeconds=grace, noWait=not wait)
        self._client.call(lambda: self._client.service.stop(request), f"the stop of {self.id}")

    def signal(self, number: int, *, to_all: bool = False) -> None:
        """Send a signal of Linux to its main process, or to all of its processes."""
        request = pb.SignalRequest(jobID=self.id, signal=number, all=to_all)
        # Twice is another thing than once.
        self._client.call(lambda: self._client.service.signal(request), "", again=False)

    def remove(self) -> None:
        """Have the server forget it, with its output, once it has ended."""
        self._client.call(lambda: self._client.service.remove(self.id), "", again=False)

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Send it input; with `end` it finds the end of that. Return when it has arrived.

        The job must have been started with `input` open or stored in its request.
        """
        client = self._client
        with sending(client.service, self.id, outage=client.outage()) as sender:
            sender.send(data)
            if end:
                sender.end()

    def put(self, source: str | PathLike[str], path: str = "") -> None:
        """Put a file into its directory: at `path`, or in that under its own name.

        That takes the job's user's rights, and nothing outside of its directory. The file is
        there as a whole, with its mode, or not at all. Raises OSError, too.
        """
        file = Path(source)
        with self._explaining():
            put_file(
                self._client.service,
                self.id,
                file,
                os.fsencode(path),
                name=os.fsencode(file.name),
                mode=file.stat().st_mode & 0o777,
                outage=self._client.outage(),
            )

    def get(self, path: str, target: str | PathLike[str] = ".") -> Path:
        """Get a file out of its directory: as `target`, or in that under its own name.

        Returns where it is then. Raises OSError, too.
        """
        remote, place = os.fsencode(path), Path(target)
        if place.is_dir():
            place /= os.path.basename(path)  # noqa: PTH119 - of the server's paths
        with self._explaining(), closing(FileSink(place, self.id, remote)) as sink:
            get_file(self._client.service, self.id, remote, sink, outage=self._client.outage())
        return place

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise explained(error, self._client.endpoint) from error

    def output(self, stream: Stream = "both") -> bytes:
        """Return all output that there is now and is kept, without waiting for more."""
        pieces = self.follow(stream, wait=False)
        return b"".join(piece.data for piece in pieces if isinstance(piece, Chunk))

    def follow(
        self,
        stream: Stream = "both",
        *,
        offset: int = 0,
        wait: bool = True,
        until_exit: bool = False,
    ) -> Iterator[Piece]:
        """Yield its output from `offset` on as it is written: chunks of bytes, and gaps.

        It ends when the output is complete; with `until_exit` when the main process has
        ended and what that wrote has come; without `wait` at what is there now.
        """
        request = output_request(self.id, stream, offset, wait=wait, until_exit=until_exit)
        with self._explaining():
            yield from map(kept, read_output(self._client.service, request, self._client.outage()))

    def lines(self, stream: Stream = "both", *, wait: bool = True) -> Iterator[str]:
        """Yield its lines as they are written, without their ends; bad UTF-8 becomes U+FFFD."""
        lines = Lines()
        for piece in self.follow(stream, wait=wait):
            yield from lines.of(piece)
        yield from lines.rest()


class Lines:
    """Cuts a job's output into lines; those of one stream do not mix with the other's."""

    def __init__(self) -> None:
        self._begun: dict[str | None, bytearray] = {}

    def of(self, piece: Piece) -> Iterable[str]:
        """The lines that a piece completes."""
        if isinstance(piece, Gap):
            return ()
        begun = self._begun.setdefault(piece.stream, bytearray())
        begun += piece.data
        *whole, rest = begun.split(b"\n")
        self._begun[piece.stream] = rest
        return map(_text, whole)

    def rest(self) -> Iterable[str]:
        """The lines that were not ended."""
        return [_text(line) for line in self._begun.values() if line]


def _text(line: bytearray) -> str:
    return line.decode("utf-8", "replace")


def kept(piece: Piece) -> Piece:
    """Return a piece that stays as it is when the next comes."""
    if isinstance(piece, Gap) or isinstance(piece.data, bytes):
        return piece
    return Chunk(piece.offset, bytes(piece.data), piece.stream, piece.time)


def output_request(
    job_id: str, stream: Stream, offset: int, *, wait: bool, until_exit: bool
) -> pb.GetOutputRequest:
    """Return the request for exact bytes, told apart by their stream."""
    return pb.GetOutputRequest(
        jobID=job_id,
        raw=True,
        streams=True,
        stream=_STREAMS[stream],
        offset=offset,
        noFollow=not wait,
        untilExit=until_exit,
    )


def endpoint_of(server: str, ca: str | Path, cert: str | Path, key: str | Path) -> Endpoint:
    """Return the endpoint, with the port that servers have where none is said."""
    # An IPv6 address has colons of its own, and brackets where it has a port.
    if server.endswith("]") or ":" not in server:
        server = f"{server}:{DEFAULT_PORT}"
    return Endpoint(server, Path(ca), Path(cert), Path(key))


def failure_text(status: JobStatus) -> str:
    """Say how a job ended that did not end with 0."""
    how = f"ended with {status.exit_code}" if status.reason != "lost" else "was lost"
    return f"job {status.id} {how} ({status.reason})"
