"""Putting files into jobs' directories, and getting them, straight on the generated stubs."""

import os
from collections.abc import Iterator
from hashlib import sha256

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

PIECE = 300_000


def put_requests(
    job_id: str, path: str, data: bytes, mode: int = 0o644, name: str = "source"
) -> Iterator[pb.PutRequest]:
    """All of a file, from its begin."""
    digest = sha256(data).hexdigest()
    yield pb.PutRequest(
        jobID=job_id,
        path=os.fsencode(path),
        name=os.fsencode(name),
        mode=mode,
        size=len(data),
        sha256=digest,
    )
    for begin in range(0, len(data), PIECE):
        yield pb.PutRequest(data=data[begin : begin + PIECE])
    yield pb.PutRequest(end=True)


def put(
    worker: WorkerServiceStub, job_id: str, path: str, data: bytes = b"data", mode: int = 0o644
) -> None:
    """Put a file that is not there in part yet."""
    answers = list(worker.Put(put_requests(job_id, path, data, mode), timeout=60))
    assert [(answer.offset, answer.done) for answer in answers] == [(0, False), (len(data), True)]


def get(worker: WorkerServiceStub, job_id: str, path: str) -> bytes:
    """All of a file."""
    first, *pieces, last = worker.Get(
        pb.GetRequest(jobID=job_id, path=os.fsencode(path)), timeout=60
    )
    data = b"".join(piece.data for piece in pieces)
    assert first.file.size == len(data)
    assert last.end.sha256 == sha256(data).hexdigest()
    return data
