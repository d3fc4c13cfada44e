"""What the supervisor is told to start, from what a caller asked for."""

from dataclasses import dataclass

from jobworker.authz.identity import Identity
from jobworker.grpc_api.config import OutputLimits, QuotasConfig
from jobworker.grpc_api.guard.access import argv_of_start, tenant_of_start
from jobworker.grpc_api.service.messages import isolation_name, stop_way
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    SupervisorConfig,
    stop_message,
    to_bytes,
)


def _variables(request: pb.StartRequest) -> list[ipc.Variable]:
    return [
        *(
            ipc.Variable(name=name.encode(), value=value.encode())
            for name, value in request.environment.items()
        ),
        *(ipc.Variable(name=one.name, value=one.value) for one in request.rawEnvironment),
    ]


@dataclass(frozen=True, slots=True)
class StartOrders:
    """Fills in what the server's settings say: the one place where Start and CanI are the same."""

    config: SupervisorConfig
    limits: OutputLimits
    quotas: QuotasConfig

    def order(self, identity: Identity, job_id: str, request: pb.StartRequest) -> ipc.Start:
        """The order to start this under `job_id`. Raises Refusal."""
        tenant = tenant_of_start(identity, request.tenant)
        return ipc.Start(
            id=job_id,
            owner=identity.common_name,
            tenant=tenant,
            argv=map(to_bytes, argv_of_start(request)),
            environment=_variables(request),
            cwd=request.rawWorkingDirectory or request.workingDirectory.encode(),
            grace_seconds=request.graceSeconds or self.config.grace_seconds,
            request_id=request.requestID,
            timeout_seconds=request.timeoutSeconds,
            output_limit=self.limits.resolve(request.outputLimit, tenant),
            limits=ipc.Limits(
                memory_bytes=request.limits.memoryBytes,
                cpus=request.limits.cpus,
                processes=request.limits.processes,
                open_files=request.limits.openFiles,
                io_weight=request.limits.ioWeight,
            ),
            isolation=isolation_name(request.isolation),
            no_network=request.noNetwork,
            stop=stop_message(stop_way(request.stopSignal, request.stopMode)),
            user_quota=self.quotas.of_user(identity.common_name).message(),
            tenant_quota=self.quotas.of_tenant(tenant).message(),
        )
