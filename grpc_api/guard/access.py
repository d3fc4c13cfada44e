"""Which job a request is about, and whether its caller may do that to it."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from jobworker.authz.identity import Identity
from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.authz.policy.policy import Decision, JobFacts, Policy
from jobworker.authz.policy.rights import rights_of
from jobworker.grpc_api.guard.references import Named, Newest, Part, Whole, candidates, reference
from jobworker.grpc_api.guard.refusal import Refusal, invalid
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import (
    JobSnapshot,
    NoSuchJob,
    SupervisorClient,
    to_text,
)

# A caller who may do one of these to a job may know that it exists.
SEEING = ("status", "list", "output")
# Decided about in place of a job that is not there.
_NOBODYS = JobFacts("", "")
# That there is no such job is told at a multiple of this after the question, so
# that how long it took to find out says nothing.
_BEAT_SECONDS = 0.02
# As long as an owner's name, a slash, and a job's.
_SHOWN = 129
# So many of the jobs with a part of an ID are counted, of those the caller may see.
PART_PAGE = 1000


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
        """Whether the caller may do the action to the job that `job_id` means: see references.

        A job that is not there and one that the caller may not see are told in
        the same words, after the same work and on the same beat: NoSuchJob.
        One they may see but not treat so is a Refusal, and so is a part of an ID
        that several jobs have.
        """
        asked = asyncio.get_running_loop().time()
        try:
            job = await self._find(identity, action, job_id)
        except Refusal as error:
            return Verdict(action, job_id, _NOBODYS, None, self.authority.version, error)
        about = facts(job) if job else _NOBODYS
        verdict = self._judge(identity, action, about, job)
        seen = verdict.error is None or self.may_see(identity, about)
        if job is not None and seen:
            return verdict
        await _next_beat(asked)
        unknown = _no_such_job(job_id)
        if job is None:
            return Verdict(action, job_id, _NOBODYS, None, verdict.policy, unknown)
        return verdict._replace(error=unknown, job=None)

    def judge_found(self, identity: Identity, action: str, job: JobSnapshot) -> Verdict:
        """Whether the caller may do the action to a job; the error is a Refusal in any case."""
        return self._judge(identity, action, facts(job), job)

    def judge_facts(self, identity: Identity, action: str, about: JobFacts) -> Verdict:
        """Whether the caller may do the action to what is to be such a job."""
        return self._judge(identity, action, about, None)

    def _judge(
        self, identity: Identity, action: str, about: JobFacts, job: JobSnapshot | None
    ) -> Verdict:
        policy = self.authority.policy
        decision = policy.decide(identity, action, about)
        job_id = job.id if job else ""
        if not decision.allowed:
            return Verdict(action, job_id, about, decision, policy.version, denial(decision))
        return Verdict(action, job_id, about, decision, policy.version, None, job)

    def judge_start(
        self, identity: Identity, request: pb.StartRequest, job_id: str = ""
    ) -> Verdict:
        """Whether the caller may start this, for that tenant; `job_id` is what its ID is to be.

        One that waits for input takes the right to attach, too, and one with files that to put.
        """
        policy = self.authority.policy
        try:
            tenant = tenant_of_start(identity, request.tenant)
        except Refusal as error:
            about = _facts_of_start(identity, request, request.tenant)
            return Verdict("start", job_id, about, None, policy.version, error)
        about = _facts_of_start(identity, request, tenant)
        return start_verdict(policy, identity, about, job_id, request)

    def judge_anything(self, identity: Identity, action: str) -> Verdict:
        """For what takes no right of its own: whether the caller has any at all."""
        policy = self.authority.policy
        allowed = any(right.rule.effect == "allow" for right in rights_of(policy, identity))
        words = "some rule allows" if allowed else "no rule of the policy allows"
        reason = f"{action} to cn={identity.common_name}: {words} them something"
        decision = Decision(allowed=allowed, reason=reason, rule=None)
        refusal = None if allowed else denial(decision)
        return Verdict(action, "", _NOBODYS, decision, policy.version, refusal)

    def each_job(self, action: str) -> Verdict:
        """For an action on many jobs, to each of which the method asks for the right."""
        decision = Decision(allowed=True, reason="each job is decided by itself", rule=None)
        policy = self.authority.version
        return Verdict(action, "", JobFacts("*", "*"), decision, policy, None)

    async def seen(self, identity: Identity, called: str) -> JobSnapshot:
        """The job that is called so, which the caller may see. Raises NoSuchJob and Refusal."""
        job = await self._find(identity, SEEING[0], called)
        if job is None or not self.may_see(identity, facts(job)):
            raise _no_such_job(called)
        return job

    def may_see(self, identity: Identity, about: JobFacts) -> bool:
        """Whether the caller may know that there is such a job."""
        return self._may_any(identity, SEEING, about)

    async def _find(self, identity: Identity, action: str, job_id: str) -> JobSnapshot | None:
        """The job, if by its ID also one the caller may not see.

        Of a part of an ID only one they may see; of a name also one that they may not
        see, but do the action to.
        """
        match reference(job_id, identity.common_name):
            case Whole(whole):
                return await self._whole(whole)
            case Part(part):
                found = await self._of_part(identity, part)
                return found and await self._whole(found.id)
            case Named(owner, name):
                query = ipc.List(owner=owner, name=name, limit=1)
            case Newest(owner):
                query = ipc.List(owner=owner, limit=1)
            case None:
                return None
        page = await self.jobs_of(identity, (*SEEING, action), query)
        # A list has less of each.
        return await self._whole(page[0].id) if page else None

    async def _whole(self, job_id: str) -> JobSnapshot | None:
        try:
            return await self.supervisor.get(job_id)
        except NoSuchJob:
            return None

    async def jobs_of(
        self, identity: Identity, actions: Sequence[str], query: ipc.List
    ) -> list[JobSnapshot]:
        """A page of the jobs that the caller may do one of the actions to, if only that.

        It takes the same work however many jobs others have: whose there are is
        asked first, and only those the caller may treat so are read.
        """
        whose = await self._whose(identity, actions, query.owner, query.tenant)
        return await self._page(query, whose)

    async def _whose(
        self, identity: Identity, actions: Sequence[str], owner: str = "", tenant: str = ""
    ) -> list[ipc.Owner]:
        """Whose jobs the caller may treat so, of that owner and tenant if they are given."""
        # What is not to be started is judged by these two alone.
        return [
            ipc.Owner(owner=one, tenant=other)
            for one, other in await self.supervisor.owners()
            if owner in ("", one)
            and tenant in ("", other)
            and self._may_any(identity, actions, JobFacts(one, other))
        ]

    async def _page(self, query: ipc.List, whose: Sequence[ipc.Owner]) -> list[JobSnapshot]:
        if not whose:
            # No owners would mean everybody.
            return []
        wanted = ipc.List()
        wanted.CopyFrom(query)
        wanted.whose.extend(whose)
        return await self.supervisor.list(wanted)

    def _may_any(self, identity: Identity, actions: Sequence[str], about: JobFacts) -> bool:
        # All of them, so that every answer takes the same work.
        allowed = [self.authority.decide(identity, action, about).allowed for action in actions]
        return any(allowed)

    async def _of_part(self, identity: Identity, part: str) -> JobSnapshot | None:
        whose = await self._whose(identity, SEEING)
        beginning = ipc.List(prefix=part, limit=PART_PAGE)
        visible = {
            job.id: job
            for query in (beginning, ipc.List(ending=part, limit=PART_PAGE))
            for job in await self._page(query, whose)
        }
        if len(visible) > 1:
            words = candidates(part, list(visible.values()))
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "AMBIGUOUS_PREFIX", words)
        return next(iter(visible.values()), None)


def start_verdict(
    policy: Policy, identity: Identity, about: JobFacts, job_id: str, asked: pb.StartRequest
) -> Verdict:
    """Whether somebody may start this by the policy, with all the rights that it takes."""
    decision = policy.decide(identity, "start", about)
    if decision.allowed and (asked.input or asked.HasField("terminal")):
        # What nobody could send would be waited for.
        decision = policy.decide(identity, "attach", about)
    if decision.allowed and asked.uploads:
        decision = policy.decide(identity, "put", about)
    refusal = None if decision.allowed else denial(decision)
    return Verdict("start", job_id, about, decision, policy.version, refusal)


async def _next_beat(since: float) -> None:
    """Wait until a whole number of beats is over since then, by the event loop's clock."""
    passed = asyncio.get_running_loop().time() - since
    await asyncio.sleep(_BEAT_SECONDS - passed % _BEAT_SECONDS)


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


def argv_of_start(request: pb.StartRequest) -> tuple[str, ...]:
    """The program and its arguments, as exact_text has them.

    Raises Refusal (INVALID_ARGUMENT) when they are given in both ways.
    """
    if not request.rawArguments:
        return request.commandName, *request.Arguments
    if request.commandName or request.Arguments:
        problem = "rawArguments stand in place of commandName and Arguments, not beside them"
        raise invalid("rawArguments", problem)
    return tuple(map(to_text, request.rawArguments))


def _facts_of_start(identity: Identity, request: pb.StartRequest, tenant: str) -> JobFacts:
    command, *arguments = argv_of_start(request)
    return JobFacts(identity.common_name, tenant, command, tuple(arguments))


def denial(decision: Decision) -> Refusal:
    """The refusal that tells a decision's reason."""
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, "DENIED", decision.reason)


def _no_such_job(job_id: str) -> NoSuchJob:
    return NoSuchJob(f"there is no job {job_id[:_SHOWN]!r}, or it is not yours to see")
