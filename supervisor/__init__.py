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
    from jobworker.supervisor.config import (
        SupervisorConfig,
    )
    from jobworker.supervisor.control import (
        SUPERVISOR_TARGET,
        UPGRADE_DONE,
        become_keeper,
        running_config,
        upgrade_keeper,
    )
    from jobworker.supervisor.errors import (
        AlreadyEnded,
        CannotExecute,
        CannotPlace,
        Drained,
        Exhausted,
        FileBusy,
        FileChanged,
        FileRefused,
        InvalidRequest,
        KeyTaken,
        NameTaken,
        NoInput,
        NoSuchFile,
        NoSuchJob,
        NoSuchSchedule,
        NothingListens,
        NotOpen,
        NotRunning,
        QuotaReached,
        ShuttingDown,
        StateError,
        StillRunning,
        SupervisorBug,
        SupervisorError,
        SupervisorUnavailable,
    )
    from jobworker.supervisor.exact_text import (
        is_utf8,
        legible,
        to_bytes,
        to_text,
    )
    from jobworker.supervisor.host.accounting import (
        Usage,
    )
    from jobworker.supervisor.host.cgroup import (
        enter_service,
    )
    from jobworker.supervisor.host.disk_space import (
        Ballast,
    )
    from jobworker.supervisor.host.isolation import (
        Profile,
    )
    from jobworker.supervisor.host.limits import (
        Limits,
    )
    from jobworker.supervisor.host.memory import (
        keep_freed_memory,
    )
    from jobworker.supervisor.host.sizes import (
        Size,
        is_size,
        size_of,
    )
    from jobworker.supervisor.host.user_mapping import (
        UsersConfig,
    )
    from jobworker.supervisor.host.users import (
        SERVICE_USER,
        Account,
        find_account,
        find_group,
    )
    from jobworker.supervisor.ipc.client import (
        Attending,
        SupervisorClient,
    )
    from jobworker.supervisor.ipc.messages import (
        limits_message,
        stop_message,
        usage_message,
    )
    from jobworker.supervisor.ipc.snapshot import (
        JobSnapshot,
    )
    from jobworker.supervisor.ipc.start_request import (
        MAX_OUTPUT_BYTES,
        MIN_OUTPUT_BYTES,
        MOST_AFTER,
    )
    from jobworker.supervisor.job import (
        Asker,
        Input,
        InputPiece,
        OnDisconnect,
        OutputLimit,
        Overflow,
        Reason,
        Received,
        State,
        StopMode,
        StopWay,
        is_job_name,
    )
    from jobworker.supervisor.journal.missing import (
        set_output_aside,
    )
    from jobworker.supervisor.keeper.config import (
        REFUSED,
        KeeperConfig,
        ServiceConfig,
    )
    from jobworker.supervisor.keeper.forked import (
        PR_SET_NO_NEW_PRIVS,
    )
    from jobworker.supervisor.keeper.logs import (
        log_environment,
        log_to_stderr,
        say,
    )
    from jobworker.supervisor.keeper.packets import (
        Line,
    )
    from jobworker.supervisor.library import (
        AsyncJob,
        AsyncJobWorker,
    )
    from jobworker.supervisor.output.follow import (
        CHUNK_BYTES,
        Selection,
        follow,
    )
    from jobworker.supervisor.output.reader import (
        Chunk,
        Gap,
    )
    from jobworker.supervisor.output.segments import (
        STDERR,
        STDOUT,
    )
    from jobworker.supervisor.porter.carriage import (
        Carriage,
        Parcel,
        Sent,
    )
    from jobworker.supervisor.porter.porter import (
        MAX_DATA,
    )
    from jobworker.supervisor.threaded import (
        Job,
        JobWorker,
    )

_HOME = {
    "Account": "host.users",
    "AlreadyEnded": "errors",
    "AsyncJob": "library",
    "AsyncJobWorker": "library",
    "CHUNK_BYTES": "output.follow",
    "CannotExecute": "errors",
    "CannotPlace": "errors",
    "Chunk": "output.reader",
    "Drained": "errors",
    "Carriage": "porter.carriage",
    "Exhausted": "errors",
    "FileBusy": "errors",
    "FileChanged": "errors",
    "FileRefused": "errors",
    "MAX_DATA": "porter.porter",
    "NoSuchFile": "errors",
    "Parcel": "porter.carriage",
    "Sent": "porter.carriage",
    "Gap": "output.reader",
    "InvalidRequest": "errors",
    "Job": "threaded",
    "JobSnapshot": "ipc.snapshot",
    "JobWorker": "threaded",
    "KeeperConfig": "keeper.config",
    "KeyTaken": "errors",
    "Limits": "host.limits",
    "Line": "keeper.packets",
    "MAX_OUTPUT_BYTES": "ipc.start_request",
    "MIN_OUTPUT_BYTES": "ipc.start_request",
    "MOST_AFTER": "ipc.start_request",
    "NameTaken": "errors",
    "NoSuchJob": "errors",
    "NoSuchSchedule": "errors",
    "NotRunning": "errors",
    "NothingListens": "errors",
    "NotOpen": "errors",
    "OutputLimit": "job",
    "Overflow": "job",
    "PR_SET_NO_NEW_PRIVS": "keeper.forked",
    "Profile": "host.isolation",
    "QuotaReached": "errors",
    "REFUSED": "keeper.config",
    "Reason": "job",
    "SERVICE_USER": "host.users",
    "STDERR": "output.segments",
    "STDOUT": "output.segments",
    "SUPERVISOR_TARGET": "control",
    "Selection": "output.follow",
    "ServiceConfig": "keeper.config",
    "ShuttingDown": "errors",
    "Size": "host.sizes",
    "State": "job",
    "StateError": "errors",
    "StillRunning": "errors",
    "StopMode": "job",
    "StopWay": "job",
    "SupervisorBug": "errors",
    "SupervisorClient": "ipc.client",
    "SupervisorConfig": "config",
    "SupervisorError": "errors",
    "SupervisorUnavailable": "errors",
    "UPGRADE_DONE": "control",
    "Usage": "host.accounting",
    "become_keeper": "control",
    "Ballast": "host.disk_space",
    "enter_service": "host.cgroup",
    "UsersConfig": "host.user_mapping",
    "find_account": "host.users",
    "find_group": "host.users",
    "follow": "output.follow",
    "is_job_name": "job",
    "is_size": "host.sizes",
    "is_utf8": "exact_text",
    "legible": "exact_text",
    "limits_message": "ipc.messages",
    "log_environment": "keeper.logs",
    "log_to_stderr": "keeper.logs",
    "running_config": "control",
    "set_output_aside": "journal.missing",
    "say": "keeper.logs",
    "size_of": "host.sizes",
    "stop_message": "ipc.messages",
    "to_bytes": "exact_text",
    "to_text": "exact_text",
    "upgrade_keeper": "control",
    "usage_message": "ipc.messages",
    "NoInput": "errors",
    "Asker": "job",
    "Input": "job",
    "InputPiece": "job",
    "Received": "job",
    "keep_freed_memory": "host.memory",
    "Attending": "ipc.client",
    "OnDisconnect": "job",
}

__all__ = [
    "CHUNK_BYTES",
    "MAX_DATA",
    "MAX_OUTPUT_BYTES",
    "MIN_OUTPUT_BYTES",
    "MOST_AFTER",
    "PR_SET_NO_NEW_PRIVS",
    "REFUSED",
    "SERVICE_USER",
    "STDERR",
    "STDOUT",
    "SUPERVISOR_TARGET",
    "UPGRADE_DONE",
    "Account",
    "AlreadyEnded",
    "Asker",
    "AsyncJob",
    "AsyncJobWorker",
    "Attending",
    "Ballast",
    "CannotExecute",
    "CannotPlace",
    "Carriage",
    "Chunk",
    "Drained",
    "Exhausted",
    "FileBusy",
    "FileChanged",
    "FileRefused",
    "Gap",
    "Input",
    "InputPiece",
    "InvalidRequest",
    "Job",
    "JobSnapshot",
    "JobWorker",
    "KeeperConfig",
    "KeyTaken",
    "Limits",
    "Line",
    "NameTaken",
    "NoInput",
    "NoSuchFile",
    "NoSuchJob",
    "NoSuchSchedule",
    "NotOpen",
    "NotRunning",
    "NothingListens",
    "OnDisconnect",
    "OutputLimit",
    "Overflow",
    "Parcel",
    "Profile",
    "QuotaReached",
    "Reason",
    "Received",
    "Selection",
    "Sent",
    "ServiceConfig",
    "ShuttingDown",
    "Size",
    "State",
    "StateError",
    "StillRunning",
    "StopMode",
    "StopWay",
    "SupervisorBug",
    "SupervisorClient",
    "SupervisorConfig",
    "SupervisorError",
    "SupervisorUnavailable",
    "Usage",
    "UsersConfig",
    "become_keeper",
    "enter_service",
    "find_account",
    "find_group",
    "follow",
    "is_job_name",
    "is_size",
    "is_utf8",
    "keep_freed_memory",
    "legible",
    "limits_message",
    "log_environment",
    "log_to_stderr",
    "running_config",
    "say",
    "set_output_aside",
    "size_of",
    "stop_message",
    "to_bytes",
    "to_text",
    "upgrade_keeper",
    "usage_message",
]


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
