"""The library: runs, stops, queries and streams processes. No gRPC, no authorization.

    from jobworker.supervisor import JobWorker

    with JobWorker("/tmp/jobs") as worker:
        job = worker.start(["sh", "-c", "echo hello; exit 3"])
        for chunk in job.output():
            print(chunk.offset, chunk.data)
        print(job.wait().exit_code)

AsyncJobWorker is the same for asyncio:

    import asyncio
    from jobworker.supervisor import AsyncJobWorker

    async def main():
        async with AsyncJobWorker("/tmp/jobs") as worker:
            job = await worker.start(["sh", "-c", "echo hello; exit 3"])
            async for chunk in job.output():
                print(chunk.offset, chunk.data)
            print((await job.wait()).exit_code)

    asyncio.run(main())

What is public is imported on first use: the keeper lives in this package, too,
and must stay small.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobworker.supervisor.errors import (
        AlreadyEnded,
        CannotExecute,
        CannotPlace,
        Exhausted,
        InvalidRequest,
        NoSuchJob,
        ShuttingDown,
        StateError,
        StillRunning,
        SupervisorError,
        SupervisorUnavailable,
    )
    from jobworker.supervisor.host.accounting import Usage
    from jobworker.supervisor.host.limits import Limits
    from jobworker.supervisor.ipc.client import SupervisorClient
    from jobworker.supervisor.ipc.snapshot import JobSnapshot
    from jobworker.supervisor.job import OutputLimit, Overflow, Reason, State, StopMode, StopWay
    from jobworker.supervisor.library import AsyncJob, AsyncJobWorker, Job, JobWorker
    from jobworker.supervisor.output.follow import Selection
    from jobworker.supervisor.output.reader import Chunk, Gap

_HOME = {
    "AlreadyEnded": "errors",
    "AsyncJob": "library",
    "AsyncJobWorker": "library",
    "CannotExecute": "errors",
    "CannotPlace": "errors",
    "Chunk": "output.reader",
    "Exhausted": "errors",
    "Gap": "output.reader",
    "InvalidRequest": "errors",
    "Job": "library",
    "JobSnapshot": "ipc.snapshot",
    "JobWorker": "library",
    "Limits": "host.limits",
    "NoSuchJob": "errors",
    "OutputLimit": "job",
    "Overflow": "job",
    "Reason": "job",
    "Selection": "output.follow",
    "ShuttingDown": "errors",
    "State": "job",
    "StateError": "errors",
    "StillRunning": "errors",
    "StopMode": "job",
    "StopWay": "job",
    "SupervisorClient": "ipc.client",
    "SupervisorError": "errors",
    "SupervisorUnavailable": "errors",
    "Usage": "host.accounting",
}

__all__ = [
    "AlreadyEnded",
    "AsyncJob",
    "AsyncJobWorker",
    "CannotExecute",
    "CannotPlace",
    "Chunk",
    "Exhausted",
    "Gap",
    "InvalidRequest",
    "Job",
    "JobSnapshot",
    "JobWorker",
    "Limits",
    "NoSuchJob",
    "OutputLimit",
    "Overflow",
    "Reason",
    "Selection",
    "ShuttingDown",
    "State",
    "StateError",
    "StillRunning",
    "StopMode",
    "StopWay",
    "SupervisorClient",
    "SupervisorError",
    "SupervisorUnavailable",
    "Usage",
]


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
