"""Telling callers what they may do, without doing it."""

import grpc

from jobworker.authz.identity import Identity
from jobworker.authz.policy.rules import ACTIONS
from jobworker.grpc_api.guard.access import Access, Verdict
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb


async def can_i(access: Access, call: Call, request: pb.CanIRequest) -> pb.CanIResponse:
    """Answer as the policy in force decides, in the words a real request would end with.

    Raises Refusal (INVALID_ARGUMENT) for a question that means nothing.
    """
    verdict = await _verdict(access, call.identity, request)
    call.record(verdict._replace(action=f"can-i {verdict.action}"))
    if verdict.error is not None:
        return pb.CanIResponse(allowed=False, reason=str(verdict.error))
    assert verdict.decision is not None  # noqa: S101 - without an error there is one
    return pb.CanIResponse(allowed=True, reason=verdict.decision.reason)


async def _verdict(access: Access, identity: Identity, request: pb.CanIRequest) -> Verdict:
    if request.action not in ACTIONS:
        raise _meaningless(f"{request.action[:64]!r} is not one of {', '.join(ACTIONS)}")
    if request.action == "start":
        if not request.start.commandName:
            raise _meaningless("say what would be started")
        return access.judge_start(identity, request.start)
    if not request.jobID:
        raise _meaningless(f"say which job you would {request.action}")
    return await access.judge(identity, request.action, request.jobID)


def _meaningless(problem: str) -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", problem)
