"""Anybody's jobs: listed page by page, and ended all at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from jobworker.grpc_api.errors import ApiError
from jobworker.proto import admin_pb2 as admin
from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import JobSnapshot, NoSuchJob, SupervisorClient, SupervisorError

_PAGE = 1000


async def listed(supervisor: SupervisorClient, asked: admin.List) -> AsyncIterator[JobSnapshot]:
    """Yield the jobs that all of this is true of, the newest first."""
    query = ipc.List(limit=_PAGE, running=asked.running, owner=asked.owner, tenant=asked.tenant)
    left = asked.limit
    while True:
        query.limit = min(left, _PAGE) if asked.limit else _PAGE
        page = await supervisor.list(query)
        for job in page:
            yield job
        left -= len(page)
        if len(page) < query.limit or (asked.limit and left <= 0):
            return
        query.before = page[-1].id


async def ended(
    supervisor: SupervisorClient, jobs: Sequence[JobSnapshot], grace: float | None
) -> AsyncIterator[JobSnapshot]:
    """Stop all at once; yield each when nothing is left of it.

    Raises ApiError at the end when some could not be stopped.
    """
    failed = []
    for ending in asyncio.as_completed([supervisor.end(job.id, grace) for job in jobs]):
        try:
            yield await ending
        except NoSuchJob:
            # Removed meanwhile, and so ended.
            continue
        except SupervisorError as error:
            failed.append(str(error))
    if failed:
        raise ApiError(f"{len(failed)} of {len(jobs)} could not be stopped: {failed[0]}")
