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
_AGES = 9e9
# Later than any job ended.
_EVER = 2**63 - 1


async def prune(access: Access, call: Call, request: pb.PruneRequest) -> pb.PruneResponse:
    """Forget the jobs that a request is about, and tell which those were."""
    answer = pb.PruneResponse()
    async for job, verdict in _prunable(access, call, request):
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
    answer = pb.WouldPruneResponse()
    ended_by = time_ns() - _age_ns(request)
    async for job, _ in _prunable(access, call, request):
        # To the output of the others something may still be written.
        if job.output_complete:
            # Later than now, where the clock has been set back.
            ended_by = max(ended_by, job.ended_ns)
            answer.count += 1
            answer.bytes += _kept_bytes(job)
            if answer.count <= _SHOWN:
                answer.jobs.append(status_message(job))
    answer.endedBy.CopyFrom(timestamp(min(max(1, ended_by), _ended_by_ns(request))))
    return answer


def _ended_by_ns(request: pb.PruneRequest) -> int:
    # 0 would be all of them, also those that have not ended.
    return max(1, request.endedBy.ToNanoseconds()) if request.HasField("endedBy") else _EVER


def _age_ns(request: pb.PruneRequest) -> int:
    return int(min(request.olderThanSeconds, _AGES) * 1e9)


async def _prunable(
    access: Access, call: Call, request: pb.PruneRequest
) -> AsyncIterator[tuple[JobSnapshot, Verdict]]:
    """The jobs that have ended by then and that the caller may stop, the newest first."""
    query = ipc.List(
        limit=_PAGE,
        owner=request.owner,
        tenant=request.tenant,
        ended_by_ns=_ended_by_ns(request),
        ended_ago_ns=_age_ns(request),
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
