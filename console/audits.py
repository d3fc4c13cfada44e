"""Who may ask how the policy in force decides: those whom it lets `audit`, about those jobs."""

from functools import lru_cache

from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rights import may_everywhere, may_somewhere

AUDIT = "audit"
# A policy never changes, and each page asks.
_REMEMBERED = 256


@lru_cache(_REMEMBERED)
def audits_some(policy: Policy, identity: Identity) -> bool:
    """Whether there are jobs that somebody may audit."""
    return may_somewhere(policy, identity, AUDIT)


@lru_cache(_REMEMBERED)
def audits_all(policy: Policy, identity: Identity) -> bool:
    """Whether somebody may audit every job, and so read all of the policy."""
    return may_everywhere(policy, identity, AUDIT)
