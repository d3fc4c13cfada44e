"""Telling callers what they may do, without doing it."""

from uuid_utils import uuid7

from jobworker.authz.identity import Identity
from jobworker.authz.policy.rights import Right, rights_of
from jobworker.authz.policy.rules import ACTIONS
from jobworker.grpc_api.guard.access import Access, Verdict, argv_of_start
from jobworker.grpc_api.guard.fields import check_fields
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import contract_name, invalid
from jobworker.grpc_api.service.orders import StartOrders, with_whole_ids
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import NoSuchJob, Profile, limits_message


async def can_i(
    access: Access, orders: StartOrders, call: Call, request: pb.CanIRequest
) -> pb.CanIResponse:
    """Answer as a real request would be decided, in the words it would end with.

    Raises Refusal and InvalidRequest (both INVALID_ARGUMENT) for a question that
    means nothing.
    """
    verdict = await _verdict(access, call.identity, request)
    call.record(verdict._replace(action=f"can-i {verdict.action}"))
    if verdict.error is not None:
        return pb.CanIResponse(allowed=False, reason=str(verdict.error))
    if request.action == "start":
        # Rights are not all: what else Start asks is asked, in the same order.
        check_fields(request.start)
        try:
            asked = await with_whole_ids(access, call.identity, request.start)
        except NoSuchJob as error:
            return pb.CanIResponse(allowed=False, reason=str(error))
        order = orders.order(call.identity, str(uuid7()), asked)
        refusal, field = await access.supervisor.may_start(order)
        if refusal:
            where = f" ({contract_name(field, request)})" if field else ""
            return pb.CanIResponse(allowed=False, reason=refusal + where)
    assert verdict.decision is not None  # noqa: S101 - without an error there is one
    return pb.CanIResponse(allowed=True, reason=verdict.decision.reason)


async def _verdict(access: Access, identity: Identity, request: pb.CanIRequest) -> Verdict:
    if request.action not in ACTIONS:
        raise invalid("action", f"{request.action[:64]!r} is not one of {', '.join(ACTIONS)}")
    if request.action == "start":
        if not argv_of_start(request.start)[0]:
            field = "rawArguments" if request.start.rawArguments else "commandName"
            raise invalid(f"start.{field}", "say what would be started")
        return access.judge_start(identity, request.start)
    if not request.jobID:
        raise invalid("jobID", f"say which job you would {request.action}")
    return await access.judge(identity, request.action, request.jobID)


def rights(access: Access, orders: StartOrders, identity: Identity) -> pb.RightsResponse:
    """What the policy in force and the server's settings say about somebody."""
    return pb.RightsResponse(
        rights=map(_right_message, rights_of(access.authority.policy, identity)),
        allowances=[_allowance(orders, identity, tenant) for tenant in identity.tenants or ("",)],
    )


def _right_message(right: Right) -> pb.Right:
    rule = right.rule
    return pb.Right(
        effect=rule.effect,
        action=rule.action,
        jobs=right.jobs,
        tenants=right.tenants,
        command=rule.command,
        arguments=rule.arguments,
        subject=rule.subject,
        rule=right.place,
    )


def _allowance(orders: StartOrders, identity: Identity, tenant: str) -> pb.Allowance:
    bounds = orders.config.limits.bounds(tenant)
    least = orders.config.isolation.resolve(Profile.UNSPECIFIED, network=True, tenant=tenant)
    return pb.Allowance(
        tenant=tenant,
        userQuota=orders.quotas.of_user(identity.common_name).message(),
        tenantQuota=orders.quotas.of_tenant(tenant).message(),
        defaultLimits=limits_message(bounds.default),
        mostLimits=limits_message(bounds.most),
        isolation=pb.Isolation.Name(least.profile),
        noNetwork=not least.network,
        devices=orders.config.isolation.rule_of(tenant).devices,
    )
