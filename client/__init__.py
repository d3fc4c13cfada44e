"""A remote server's jobs, for programs and for the command. Stands on proto.

    from jobworker.client import Client

    with Client("jobs.example.org", ca="ca.crt", cert="me.crt", key="me.key") as client:
        job = client.start("make", "-j4", cwd="project")
        for line in job.lines():
            print(line)
        print(job.wait().exit_code)

AsyncClient is the same for asyncio. docs/client.md has more. What is public is imported
on first use: gRPC takes a while, and the command imports errors alone at first.
"""

import os
from typing import TYPE_CHECKING

# Before gRPC's import, which reads it: its own log lines would stand between
# the command's, which say the same in words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

if TYPE_CHECKING:
    from jobworker.client.asynchronous import AsyncClient, AsyncJob
    from jobworker.client.errors import (
        BadFile,
        CallFailed,
        CertificateEnded,
        ClientError,
        GaveUp,
        InvalidRequest,
        JobFailed,
        LimitReached,
        NoSuchJob,
        NotPossible,
        Refused,
        ServerFault,
        Unreachable,
    )
    from jobworker.client.messages import JobStatus, ListOptions, Me, StartOptions
    from jobworker.client.pieces import Chunk, Gap, Piece
    from jobworker.client.sync import Client, Job, Result

# Where each is.
_HOME = {
    "AsyncClient": "asynchronous",
    "AsyncJob": "asynchronous",
    "BadFile": "errors",
    "CallFailed": "errors",
    "CertificateEnded": "errors",
    "Chunk": "pieces",
    "Client": "sync",
    "ClientError": "errors",
    "Gap": "pieces",
    "GaveUp": "errors",
    "InvalidRequest": "errors",
    "Job": "sync",
    "JobFailed": "errors",
    "JobStatus": "messages",
    "LimitReached": "errors",
    "Me": "messages",
    "NoSuchJob": "errors",
    "NotPossible": "errors",
    "Piece": "pieces",
    "Refused": "errors",
    "Result": "sync",
    "ServerFault": "errors",
    "ListOptions": "messages",
    "StartOptions": "messages",
    "Unreachable": "errors",
}

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "BadFile",
    "CallFailed",
    "CertificateEnded",
    "Chunk",
    "Client",
    "ClientError",
    "Gap",
    "GaveUp",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobStatus",
    "LimitReached",
    "ListOptions",
    "Me",
    "NoSuchJob",
    "NotPossible",
    "Piece",
    "Refused",
    "Result",
    "ServerFault",
    "StartOptions",
    "Unreachable",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"jobworker.client.{_HOME[name]}"), name)
