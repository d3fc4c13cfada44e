"""Which job a request is about, and whether its caller may do that to it."""

import re
from typing import NamedTuple

import grpc

from jobworker.authz.identity import Identity
from jobworker.authz.policy import Decision, JobFacts
from jobworker.authz.policy_in_force import PolicyInForce
from jobworker.grpc_api.status import Refusal
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.client import SupervisorClient
from jobworker.supervisor.errors import NoSuchJob
from jobworker.supervisor.snapshot import JobSnapshot

# A caller who may do one of these to a job may know that it exists.
SEEING = ("status", "list", "output")
_FULL_ID = 36
_ID_PREFIX = re.compile(r"[0-9a-f-]{4,36}")
# How many jobs with a prefix are looked at for those the caller may see.
_PREFIX_PAGE = 1000


class Verdict(NamedTuple):
    """What came of asking whether a caller may do an action.

    `about` is the job, or what there is of one that is not there. `decision` is
    None where there was nothing to decide on: no such job, or a tenant that is
    not the caller's. `policy` is the version that decided. `error` is what the
    caller is to be told, None if they may; `job` is the job to act on then.
    """

    action: str
    job_id: str
    about: JobFacts
    decision: Decision | None
    policy: str
    error: Refusal | NoSuchJob | None
    job: JobSnapshot | None = None


class Access(NamedTuple):
    """The two sources a request is judged from."""

    authority: PolicyInForce
    supervisor: SupervisorClient

    async def judge(self, identity: Identity, action: str, job_id: str) -> Verdict:
        """Whether the caller may do the action to the job of an ID, or of a prefix of it.

        A job that is not there and one that the caller may not see are told in
        the same words: NoSuchJob. One they may see but not treat so is a
        Refusal, and so is a prefix that several jobs have.
        """
        try:
            job = await self._find(identity, job_id)
        except (NoSuchJob, Refusal) as error:
            version = self.authority.version
            return Verdict(action, job_id, JobFacts("", ""), None, version, error)
        verdict = self.judge_found(identity, action, job)
        if verdict.error is not None and not self.may_see(identity, job):
            return verdict._replace(error=_no_such_job(job_id))
        return verdict

    def judge_found(self, identity: Identity, action: str, job: JobSnapshot) -> Verdict:
        """Whether the caller may do the action to a job; the error is a Refusal in any case."""
        policy = self.authority.policy
        about = facts(job)
        decision = policy.decide(identity, action, about)
        if not decision.allowed:
            return Verdict(action, job.id, about, decision, policy.version, denial(decision))
        return Verdict(action, job.id, about, decision, policy.version, None, job)

    def judge_start(
        self, identity: Identity, request: pb.StartRequest, job_id: str = ""
    ) -> Verdict:
        """Whether the caller may start this, for that tenant; `job_id` is what its ID is to be."""
        policy = self.authority.policy
        try:
            tenant = tenant_of_start(identity, request.tenant)
        except Refusal as error:
            about = _facts_of_start(identity, request, request.tenant)
            return Verdict("start", job_id, about, None, policy.version, error)
        about = _facts_of_start(identity, request, tenant)
        decision = policy.decide(identity, "start", about)
        refusal = None if decision.allowed else denial(decision)
        return Verdict("start", job_id, about, decision, policy.version, refusal)

    def each_job(self, action: str) -> Verdict:
        """For an action on many jobs, to each of which the method asks for the right."""
        decision = Decision(allowed=True, reason="each job is decided by itself", rule=None)
        policy = self.authority.version
        return Verdict(action, "", JobFacts("*", "*"), decision, policy, None)

    def may_see(self, identity: Identity, job: JobSnapshot) -> bool:
        """Whether the caller may know that the job exists."""
        about = facts(job)
        return any(self.authority.decide(identity, action, about).allowed for action in SEEING)

    async def _find(self, identity: Identity, job_id: str) -> JobSnapshot:
        if not _ID_PREFIX.fullmatch(job_id):
            raise _no_such_job(job_id)
        if len(job_id) < _FULL_ID:
            return await self._of_prefix(identity, job_id)
        try:
            return await self.supervisor.get(job_id)
        except NoSuchJob:
            raise _no_such_job(job_id) from None

    async def _of_prefix(self, identity: Identity, prefix: str) -> JobSnapshot:
        found = await self.supervisor.list(ipc.List(prefix=prefix, limit=_PREFIX_PAGE))
        visible = [job for job in found if self.may_see(identity, job)]
        if not visible:
            raise _no_such_job(prefix)
        if len(visible) > 1:
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT,
                "AMBIGUOUS_PREFIX",
                f"{len(visible)} jobs have IDs that begin with {prefix}: give more of the ID",
            )
        return visible[0]


def facts(job: JobSnapshot) -> JobFacts:
    """What a policy may judge a job by."""
    return JobFacts(owner=job.owner, tenant=job.tenant, command=job.argv[0], arguments=job.argv[1:])


def tenant_of_start(identity: Identity, asked: str) -> str:
    """The tenant a job is started for: the one asked for, else the certificate's first.

    Raises Refusal (PERMISSION_DENIED) for one that is not the caller's.
    """
    if asked and asked not in identity.tenants:
        raise Refusal(
            grpc.StatusCode.PERMISSION_DENIED,
            "DENIED",
            f"start refused to cn={identity.common_name}: "
            f"the certificate does not name the tenant {asked[:64]!r}",
        )
    return asked or (identity.tenants[0] if identity.tenants else "")


def _facts_of_start(identity: Identity, request: pb.StartRequest, tenant: str) -> JobFacts:
    return JobFacts(identity.common_name, tenant, request.commandName, tuple(request.Arguments))


def denial(decision: Decision) -> Refusal:
    """The refusal that tells a decision's reason."""
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, "DENIED", decision.reason)


def _no_such_job(job_id: str) -> NoSuchJob:
    return NoSuchJob(f"there is no job {job_id[:64]!r}, or it is not yours to see")
