"""What the supervisor is told to start, from what a caller asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from jobworker.authz.identity import Identity
from jobworker.grpc_api.config import OutputLimits, QuotasConfig
from jobworker.grpc_api.guard.access import Access, argv_of_start, tenant_of_start
from jobworker.grpc_api.guard.refusal import Refusal, invalid
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    MOST_AFTER,
    InvalidRequest,
    JobSnapshot,
    SupervisorConfig,
    to_bytes,
)


@dataclass(frozen=True, slots=True)
class StartOrders:
    """Fills in what the server's settings say: the one place where Start and CanI are the same."""

    config: SupervisorConfig
    limits: OutputLimits
    quotas: QuotasConfig
    # Why nothing new is started now; empty for no reason.
    drained: Callable[[], str] = str

    def order(
        self, identity: Identity, job_id: str, request: pb.StartRequest, inside: str = ""
    ) -> ipc.Start:
        """The order to start this under `job_id`, within a job if need be. Raises Refusal."""
        tenant = tenant_of_start(identity, request.tenant)
        asked = pb.StartRequest()
        asked.CopyFrom(request)
        asked.tenant = tenant
        asked.graceSeconds = request.graceSeconds or self.config.grace_seconds
        asked.outputLimit.CopyFrom(self.limits.resolve(request.outputLimit, tenant))
        _as_exact_bytes(asked)
        return ipc.Start(
            id=job_id,
            owner=identity.common_name,
            request=asked,
            user_quota=self.quotas.of_user(identity.common_name).message(),
            tenant_quota=self.quotas.of_tenant(tenant).message(),
            drained=self.drained(),
            inside=inside,
            asker=asker_of(identity),
        )


async def with_whole_ids(
    access: Access, identity: Identity, request: pb.StartRequest
) -> pb.StartRequest:
    """The request, with the IDs of the jobs to come after. Raises NoSuchJob and Refusal."""
    if not request.after:
        return request
    if len(request.after) > MOST_AFTER:
        # Before they are looked for, one by one.
        problem = f"{len(request.after)} jobs to come after are more than {MOST_AFTER}"
        raise invalid("after", problem)
    asked = pb.StartRequest()
    asked.CopyFrom(request)
    try:
        asked.after[:] = [(await access.seen(identity, called)).id for called in request.after]
    except InvalidRequest as error:
        raise invalid("after", str(error)) from None
    return asked


def asker_of(identity: Identity) -> ipc.Asker:
    """Whose rights are asked for again when a job's turn has come."""
    return ipc.Asker(
        tenants=identity.tenants,
        serial=identity.serial,
        not_after_us=int(identity.not_after.timestamp() * 1e6),
    )


def start_within(
    other: JobSnapshot, identity: Identity, request: pb.StartRequest
) -> pb.StartRequest:
    """What is asked for within a job, for that one's tenant. Raises Refusal."""
    if other.owner != identity.common_name:
        # Its user would be another's, and the record the caller's.
        raise Refusal(
            grpc.StatusCode.PERMISSION_DENIED,
            "DENIED",
            f"exec refused to cn={identity.common_name}: job {other.id} is {other.owner}'s, "
            "and only within one's own jobs others are started",
        )
    if request.tenant not in ("", other.tenant):
        raise invalid("start.tenant", f"job {other.id} is of tenant {other.tenant!r}")
    asked = pb.StartRequest()
    asked.CopyFrom(request)
    asked.tenant = other.tenant
    return asked


def start_again(
    before: ipc.Start, job: JobSnapshot, identity: Identity, request: pb.AgainRequest
) -> pb.StartRequest:
    """What a job was asked for, to be asked for once more. Raises Refusal."""
    if job.owner != identity.common_name:
        # Its environment is its owner's.
        raise Refusal(
            grpc.StatusCode.PERMISSION_DENIED,
            "DENIED",
            f"again refused to cn={identity.common_name}: job {job.id} is {job.owner}'s, "
            "and only one's own are started again",
        )
    asked = before.request
    if asked.input == pb.INPUT_MODE_STORED:
        raise _cannot("its stdin was a file, which is not kept: start it with --stdin FILE")
    if asked.uploads:
        raise _cannot("it came with files, which are not kept: start it with --upload FILE")
    if before.inside:
        raise _cannot(f"it ran within job {before.inside}: exec does that")
    asked.ClearField("after")
    asked.ClearField("afterOutcome")
    asked.requestID = request.requestID
    asked.name = request.name or asked.name
    return asked


def _cannot(why: str) -> Refusal:
    words = f"the job cannot be started again: {why}"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_START_AGAIN", words)


def _as_exact_bytes(request: pb.StartRequest) -> None:
    """Put the texts where exact bytes are; what the policy has judged is what is executed."""
    argv = [to_bytes(word) for word in argv_of_start(request)]
    request.ClearField("commandName")
    request.ClearField("Arguments")
    request.rawArguments[:] = argv
    request.rawEnvironment.extend(
        pb.RawVariable(name=name.encode(), value=value.encode())
        for name, value in request.environment.items()
    )
    request.ClearField("environment")
    if request.workingDirectory and not request.rawWorkingDirectory:
        request.rawWorkingDirectory = request.workingDirectory.encode()
    request.ClearField("workingDirectory")
