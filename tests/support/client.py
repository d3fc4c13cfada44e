"""A Python client of a test server, straight on the generated stubs."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.server import Server


@contextmanager
def channel_of(server: Server, user: str) -> Iterator[grpc.Channel]:
    """A channel to the server for `user`, until the block ends."""
    files = server.users[user]
    credentials = grpc.ssl_channel_credentials(
        server.authority.certificate.read_bytes(),
        files.key.read_bytes(),
        files.certificate.read_bytes(),
    )
    with grpc.secure_channel(server.address, credentials) as channel:
        yield channel


@contextmanager
def calling(server: Server, user: str) -> Iterator[WorkerServiceStub]:
    """A stub that calls the server as `user`, until the block ends."""
    with channel_of(server, user) as channel:
        yield WorkerServiceStub(channel)


def start(worker: WorkerServiceStub, *argv: str, **fields: object) -> str:
    """Start a job and return its ID."""
    request = pb.StartRequest(commandName=argv[0], Arguments=argv[1:], **fields)
    return str(worker.Start(request).jobID)


def wait(worker: WorkerServiceStub, job_id: str) -> pb.QueryStatusResponse:
    """The job once it has ended and its output is complete."""
    return worker.Wait(pb.WaitRequest(jobID=job_id, output=True))


def output(worker: WorkerServiceStub, job_id: str, **fields: object) -> bytes:
    """The exact bytes that a request for the output gives."""
    request = pb.GetOutputRequest(jobID=job_id, raw=True, **fields)
    return b"".join(message.data for message in worker.GetOutput(request))


@contextmanager
def refused(code: grpc.StatusCode) -> Iterator[list[str]]:
    """Expect the block to be refused with this status; collects the refusal's words."""
    words: list[str] = []
    with pytest.raises(grpc.RpcError) as caught:
        yield words
    assert caught.value.code() is code, caught.value
    words.append(caught.value.details())
