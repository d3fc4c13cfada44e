"""Files into jobs' directories and out of them: whole or not at all, across broken connections."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Protocol

from jobworker.client.connection import Service
from jobworker.client.errors import CallFailed, call_failed_with
from jobworker.client.follow import outlast
from jobworker.client.outage import Outage
from jobworker.proto import workerservice_pb2 as pb

PIECE_BYTES = 256 * 1024
# What is not here as a whole yet: .NAME.jobworker-part-HASH. The server has the same.
PART = ".jobworker-part-"
_HASH_CHARACTERS = 16
_MAX_NAME = 255
# How often a file that changes while it comes is begun anew.
_TRIES = 3

# Told how many bytes have gone, or come, since it was told last.
Told = Callable[[int], None]


def _untold(_: int) -> None:
    """Where nobody asked to be told."""


# -- to the job ------------------------------------------------------------------------------------


def put_file(
    service: Service,
    job: str,
    source: Path,
    path: bytes,
    *,
    name: bytes,
    mode: int,
    outage: Outage,
    told: Told = _untold,
) -> None:
    """Put a file into a job's directory, at `path`, or in it as `name` if that is a directory.

    What of it is there already, from an earlier time, is not sent again.

    Raises:
        OSError: The file cannot be read.
        CallFailed: The server refused, was never there, or the file has changed meanwhile.
        CertificateEnded: One's certificate has expired meanwhile, or was revoked.
        GaveUp: The connection broke and did not come back in time.
    """
    size, digest = _measured(source)
    first = pb.PutRequest(jobID=job, path=path, name=name, mode=mode, size=size, sha256=digest)
    lasting = _Lasting(service, outage, f"the file {os.fsdecode(name)}")
    while True:
        try:
            return _put(service, first, source, lasting, told)
        except CallFailed as error:
            lasting.outlast(error)


def _put(
    service: Service, first: pb.PutRequest, source: Path, lasting: "_Lasting", told: Told
) -> None:
    """Put it in one call, of which the server says where it is to begin."""
    begin: SimpleQueue[int | None] = SimpleQueue()
    failed: list[OSError] = []

    def requests() -> Iterator[pb.PutRequest]:
        # gRPC asks for them in a thread of its own.
        yield first
        if (offset := begin.get()) is None:
            return
        try:
            with source.open("rb") as file:
                file.seek(offset)
                while data := file.read(PIECE_BYTES):
                    yield pb.PutRequest(data=data)
                    told(len(data))
            yield pb.PutRequest(end=True)
        except OSError as error:
            failed.append(error)

    try:
        for answer in service.put(first, requests()):
            lasting.answered()
            if answer.done:
                return
            begin.put(answer.offset)
    except CallFailed:
        if failed:
            raise failed[0] from None
        raise
    finally:
        begin.put(None)
    raise _cut_short()


def _measured(source: Path) -> tuple[int, str]:
    digest, size = sha256(), 0
    with source.open("rb") as file:
        while data := file.read(PIECE_BYTES):
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


# -- from the job ----------------------------------------------------------------------------------


class Sink(Protocol):
    """Takes a file as it comes."""

    def begin(self, file: pb.FileFound) -> int:
        """Take this file from its begin, or go on with what is there of it: the offset.

        Raises CallFailed where that cannot be.
        """

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def end(self, sha256: str) -> None:
        """It is whole. Raises CallFailed if what has come has another hash."""


def get_file(
    service: Service,
    job: str,
    path: bytes,
    sink: Sink,
    *,
    outage: Outage,
    told: Told = _untold,
) -> bool:
    """Get a file out of a job's directory; whether it was written to meanwhile.

    Raises OSError for what the sink raises, and what `put_file` raises.
    """
    request = pb.GetRequest(jobID=job, path=path)
    lasting = _Lasting(service, outage, f"the file {path.decode('utf-8', 'replace')}")
    tries = 0
    while True:
        try:
            with closing(service.get(request)) as answers:
                end = _get(request, answers, sink, lasting, told)
            if end is not None:
                sink.end(end.sha256)
                return end.changed
        except CallFailed as error:
            tries += error.reason == CHANGED
            if error.reason != CHANGED or tries >= _TRIES:
                lasting.outlast(error)
            request.offset, request.version = 0, ""


def _get(
    request: pb.GetRequest,
    answers: Iterator[pb.GetResponse],
    sink: Sink,
    lasting: "_Lasting",
    told: Told,
) -> pb.FileEnd | None:
    """Take what a call brings; None where it is to be asked for from another offset on."""
    for answer in answers:
        lasting.answered()
        if answer.HasField("file"):
            file = answer.file
            if file.version != request.version or file.offset != request.offset:
                request.version, request.offset = file.version, sink.begin(file)
            if file.offset != request.offset:
                return None
        elif answer.HasField("end"):
            return answer.end
        else:
            sink.write(answer.data)
            request.offset += len(answer.data)
            told(len(answer.data))
    raise _cut_short()


class FileSink:
    """Makes a file of it, beside whose place it grows until it is whole; its mode is the job's."""

    def __init__(self, target: Path, job: str, path: bytes) -> None:
        """`job` and `path` tell what comes from what else is put at that place."""
        self._target = Path(os.path.realpath(target))
        self._what = job.encode() + b"\0" + path
        self._part: Path | None = None
        self._file: BinaryIO | None = None
        self._digest = sha256()
        self._mode = 0

    def begin(self, file: pb.FileFound) -> int:
        """As in Sink."""
        self.close()
        before, self._part = self._part, self._target.with_name(self._part_name(file.version))
        if before is not None and before != self._part:
            before.unlink()
        self._mode = file.mode & 0o777
        self._digest = sha256()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._file = open(os.open(self._part, flags, 0o600), "r+b")  # noqa: SIM115 - see close
        offset = 0
        while data := self._file.read(PIECE_BYTES):
            self._digest.update(data)
            offset += len(data)
        if offset <= file.size:
            return offset
        self._file.truncate(0)
        self._file.seek(0)
        self._digest = sha256()
        return 0

    def _part_name(self, version: str) -> str:
        key = sha256(self._what + b"\0" + version.encode()).hexdigest()[:_HASH_CHARACTERS]
        ending = os.fsencode(f"{PART}{key}")
        name = os.fsencode(self._target.name)
        return os.fsdecode(b"." + name[: _MAX_NAME - 1 - len(ending)] + ending)

    def write(self, data: bytes) -> None:
        """As in Sink."""
        assert self._file is not None  # noqa: S101 - begin comes first
        self._file.write(data)
        self._digest.update(data)

    def end(self, sha256: str) -> None:
        """As in Sink."""
        assert self._file is not None  # noqa: S101 - begin comes first
        assert self._part is not None  # noqa: S101
        if self._digest.hexdigest() != sha256:
            self.close()
            self._part.unlink()
            raise _differs()
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        self._part.chmod(self._mode)
        self._part.replace(self._target)

    def close(self) -> None:
        """Leave what has come for another time."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class StreamSink:
    """Passes it on as it comes: what has gone cannot be taken back."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._digest = sha256()
        self._offset = 0
        self._version = ""

    def begin(self, file: pb.FileFound) -> int:
        """As in Sink."""
        if self._offset and file.version != self._version:
            raise call_failed_with("ABORTED", "the file changed after a part of it had come")
        self._version = file.version
        return self._offset

    def write(self, data: bytes) -> None:
        """As in Sink."""
        self._write(data)
        self._digest.update(data)
        self._offset += len(data)

    def end(self, sha256: str) -> None:
        """As in Sink."""
        if self._digest.hexdigest() != sha256:
            # Without the reason for which it would be begun anew.
            raise call_failed_with("ABORTED", str(_differs().message))


# -- broken connections ----------------------------------------------------------------------------

# As long as gRPC repeats calls whose connection cannot be had: see channel.py.
FIRST_SECONDS = 2.0
# Reasons of the server, in CallFailed.
CHANGED, BUSY = "FILE_CHANGED", "FILE_BUSY"


class _Lasting:
    """Outlasts a broken connection, for long to a server that has answered before."""

    def __init__(self, service: Service, outage: Outage, sought: str) -> None:
        self._service = service
        self._outage = outage
        self._sought = sought
        self._answered = False
        self._first = Outage(FIRST_SECONDS)

    def answered(self) -> None:
        """The server is there."""
        self._answered = True
        self._outage.over()

    def outlast(self, error: CallFailed) -> None:
        """Wait, if that is what it takes; else raise the error, or what it has led to."""
        waits = error.code == "UNAVAILABLE" or error.reason in (BUSY, *_PAUSED)
        if not waits:
            raise error
        if not self._answered:
            if error.code == "UNAVAILABLE" and self._first.wait():
                return
            raise error
        if error.reason == BUSY:
            # The server has not noticed yet that the connection of before is broken.
            error = call_failed_with("UNAVAILABLE", error.message)
        outlast(error, self._outage, self._service, self._sought)


# One of the two has taken, or sent, nothing for a while; or the call ended as it came.
_PAUSED = ("READER_STALLED", "SENDER_GONE")


def _cut_short() -> CallFailed:
    return call_failed_with("UNAVAILABLE", "the answer ended before the file did")


def _differs() -> CallFailed:
    message = "what has come of the file is not what was sent: it changed meanwhile"
    return call_failed_with("ABORTED", message, reason=CHANGED)
