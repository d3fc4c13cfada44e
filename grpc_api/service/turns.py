"""Whether a job that waited for its turn may be started: the rights of who asked, asked again."""

from collections.abc import Callable
from datetime import UTC, datetime

import grpc

from jobworker.authz.identity import Identity
from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.grpc_api.config import QuotasConfig
from jobworker.grpc_api.guard.access import Verdict, facts, start_verdict
from jobworker.grpc_api.guard.audit_trail import AuditTrail, Caller
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import Asker, JobSnapshot

# In the audit log, in the place of a client's address.
_PEER = "queue"


class Turns:
    """Judges as the front judges a Start: by the policy in force, the lists and the settings now.

    `revoked` says whether a certificate of that serial number was taken back, and
    `drained` why nothing is started now.
    """

    def __init__(
        self,
        authority: PolicyInForce,
        quotas: QuotasConfig,
        trail: AuditTrail,
        *,
        revoked: Callable[[str], bool],
        drained: Callable[[], str],
    ) -> None:
        self._authority = authority
        self._quotas = quotas
        self._trail = trail
        self._revoked = revoked
        self._drained = drained

    def judge(self, job: JobSnapshot, asker: Asker) -> ipc.Admit:
        """Whether the job may be started; recorded as any decision."""
        admit = ipc.Admit(
            drained=self._drained(),
            user_quota=self._quotas.of_user(job.owner).message(),
            tenant_quota=self._quotas.of_tenant(job.tenant).message(),
        )
        if admit.drained:
            return admit
        not_after = datetime.fromtimestamp(asker.not_after_us / 1e6, UTC)
        identity = Identity(job.owner, asker.tenants, asker.serial, not_after)
        verdict = self._verdict(identity, job)
        try:
            self._trail.require(Caller(identity, _PEER), verdict)
        except Refusal as error:
            admit.drained = str(error)
            return admit
        admit.refusal = str(verdict.error or "")
        return admit

    def _verdict(self, identity: Identity, job: JobSnapshot) -> Verdict:
        policy = self._authority.policy
        about = facts(job)
        if objection := self._objection(identity):
            words = f"start refused to cn={job.owner}: {objection}"
            refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, "DENIED", words)
            return Verdict("start", job.id, about, None, policy.version, refusal)
        return start_verdict(policy, identity, about, job.id, job.request)

    def _objection(self, identity: Identity) -> str:
        if self._revoked(identity.serial):
            return "the certificate that it was asked for with was revoked"
        if datetime.now(UTC) >= identity.not_after:
            end = f"{identity.not_after:%Y-%m-%d %H:%M:%S} UTC"
            return f"the certificate that it was asked for with expired at {end}"
        return ""
