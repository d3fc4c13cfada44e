"""Forgetting all jobs that have ended, and telling before which they would be."""

import contextlib
from collections.abc import AsyncIterator
from time import time_ns

from jobworker.grpc_api.guard.access import Access, Verdict
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.service.messages import status_message
from jobworker.grpc_api.service.output import timestamp
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot, NoSuchJob, StillRunning

_PAGE = 1000
# So many of the jobs that would be forgotten are shown.
_SHOWN = 20
# More seconds than have passed since 1970; what a job's age is bounded by.
_AGES = 1e11


async def prune(access: Access, call: Call, request: pb.PruneRequest) -> pb.PruneResponse:
    """Forget the jobs that a request is about, and tell which those were."""
    answer = pb.PruneResponse()
    async for job, verdict in _prunable(access, call, request, _ended_by_ns(request)):
        call.record(verdict)
        with contextlib.suppress(NoSuchJob, StillRunning):
            await access.supervisor.remove(job.id)
            answer.jobIDs.append(job.id)
            answer.bytes += _kept_bytes(job)
    return answer


async def would_prune(
    access: Access, call: Call, request: pb.PruneRequest
) -> pb.WouldPruneResponse:
    """Tell of the jobs that `prune` would forget, and until when those have ended."""
    ended_by = _ended_by_ns(request)
    answer = pb.WouldPruneResponse(endedBy=timestamp(ended_by))
    async for job, _ in _prunable(access, call, request, ended_by):
        # To the output of the others something may still be written.
        if job.output_complete:
            answer.count += 1
            answer.bytes += _kept_bytes(job)
            if answer.count <= _SHOWN:
                answer.jobs.append(status_message(job))
    return answer


def _ended_by_ns(request: pb.PruneRequest) -> int:
    by_age = time_ns() - int(min(request.olderThanSeconds, _AGES) * 1e9)
    if request.HasField("endedBy"):
        by_age = min(by_age, request.endedBy.ToNanoseconds())
    # 0 would be all of them.
    return max(1, by_age)


async def _prunable(
    access: Access, call: Call, request: pb.PruneRequest, ended_by_ns: int
) -> AsyncIterator[tuple[JobSnapshot, Verdict]]:
    """The jobs that have ended by then and that the caller may stop, the newest first."""
    query = ipc.List(
        limit=_PAGE, owner=request.owner, tenant=request.tenant, ended_by_ns=ended_by_ns
    )
    while True:
        page = await access.jobs_of(call.identity, ("stop",), query)
        for job in page:
            verdict = access.judge_found(call.identity, "stop", job)
            if verdict.error is None:
                yield job, verdict
        if len(page) < _PAGE:
            return
        query.before = page[-1].id


def _kept_bytes(job: JobSnapshot) -> int:
    return job.output_end - job.output_begin
