"""How a gRPC call ended, as an error of ours."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import cast

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from jobworker.client.errors import CallFailed, call_failed_with

# In a call's initial metadata, where its job was given otherwise than by its ID.
_JOB_ID_KEY = "jobworker-job-id"


def whole_id(metadata: Iterable[tuple[str, str | bytes]] | None, given: str) -> str:
    """Return the ID of the job that a call was about, told by its metadata, or as it was given.

    A name may be another job's when the call is made again.
    """
    return next((str(value) for key, value in metadata or () if key == _JOB_ID_KEY), given)


@contextmanager
def calling() -> Generator[None]:
    """Raise CallFailed for a call that fails in the block."""
    try:
        yield
    except grpc.RpcError as error:
        raise call_failed(error) from error


def call_failed(error: grpc.RpcError) -> CallFailed:
    """Return what a failed call ended with."""
    # grpc raises nothing but calls, though its types do not say so.
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return call_failed_with("UNKNOWN", str(error))
    info = _info(error)
    errno = str(info.metadata.get("errno", ""))
    return call_failed_with(error.code().name, error.details() or "", errno, info.reason)


def _info(call: grpc.Call | grpc.aio.AioRpcError) -> ErrorInfo:
    """Return the server's google.rpc.ErrorInfo, an empty one if it sent none."""
    # A key that ends in -bin has bytes, whatever the types say.
    trailers = cast(Iterable[tuple[str, bytes]], call.trailing_metadata() or ())
    info = ErrorInfo()
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return info
    return info
