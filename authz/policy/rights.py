"""What a policy says about an identity, rule by rule, without a request."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobworker.authz.identity import Identity
from jobworker.authz.policy.job_pattern import ONESELF, OWN_TENANT, split_pattern
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rules import COVERED, EVERYWHERE, Rule

_EVERY_JOB = "*/*"


class Right(NamedTuple):
    """A rule that is about an identity.

    `jobs` are its jobs with the identity's own names filled in: one TENANT/OWNER
    glob, or one for each tenant of its own. `tenants` are those for whose jobs
    alone the identity holds the role that the rule names; empty for all.
    """

    rule: Rule
    jobs: tuple[str, ...]
    tenants: tuple[str, ...]

    @property
    def place(self) -> str:
        """The file's name and line. Where it lies is its administrator's business."""
        return f"{Path(self.rule.place.file).name}:{self.rule.place.line}"


def rights_of(policy: Policy, identity: Identity) -> Iterator[Right]:
    """Yield the rules about the identity in the policy's order. Looks at every rule."""
    scopes = sorted({grant.tenant for grant in policy.statements.grants} - {EVERYWHERE})
    # No tenant is named so: these are the subjects it is whatever the tenant.
    always = policy.subjects_of(identity, EVERYWHERE)
    within = {scope: policy.subjects_of(identity, scope) for scope in scopes}
    for rule in policy.statements.rules:
        jobs = tuple(_own(rule.jobs, identity))
        if rule.subject in always:
            tenants: tuple[str, ...] | None = ()
        else:
            tenants = tuple(scope for scope in scopes if rule.subject in within[scope]) or None
        if jobs and tenants is not None:
            yield Right(rule, jobs, tenants)


def may_somewhere(policy: Policy, identity: Identity, action: str) -> bool:
    """Whether some rule allows the identity the action. Looks at every rule."""
    return any(
        right.rule.effect == "allow" and action in COVERED[right.rule.action]
        for right in rights_of(policy, identity)
    )


def may_everywhere(policy: Policy, identity: Identity, action: str) -> bool:
    """Whether a rule allows the action on every job, and none denies it on any."""
    about = [one for one in rights_of(policy, identity) if action in COVERED[one.rule.action]]
    return all(right.rule.effect == "allow" for right in about) and any(
        right.rule.jobs == _EVERY_JOB and not right.tenants for right in about
    )


def _own(pattern: str, identity: Identity) -> Iterator[str]:
    """Yield what the pattern means for the identity; nothing if no job can be that."""
    tenants, owner = split_pattern(pattern)
    owner = identity.common_name if owner == ONESELF else owner
    for tenant in identity.tenants if tenants == OWN_TENANT else (tenants,):
        yield f"{tenant}/{owner}"
