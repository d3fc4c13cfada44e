"""Who may ask how the policy in force decides: those whom it lets `audit`, about those jobs."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rights import may_everywhere, may_somewhere

AUDIT = "audit"
_MOST_REMEMBERED = 1024
_Asked = Callable[[Policy, Identity, str], bool]
# A policy never changes, and each page asks; one that is no longer in force is forgotten.
_remembered: WeakKeyDictionary[Policy, dict[tuple[Identity, _Asked], bool]] = WeakKeyDictionary()


def audits_some(policy: Policy, identity: Identity) -> bool:
    """Whether there are jobs that somebody may audit."""
    return _told(policy, identity, may_somewhere)


def audits_all(policy: Policy, identity: Identity) -> bool:
    """Whether somebody may audit every job, and so read all of the policy."""
    return _told(policy, identity, may_everywhere)


def _told(policy: Policy, identity: Identity, asked: _Asked) -> bool:
    answers = _remembered.setdefault(policy, {})
    if (answer := answers.get((identity, asked))) is None:
        if len(answers) >= _MOST_REMEMBERED:
            answers.clear()
        answer = answers[identity, asked] = asked(policy, identity, AUDIT)
    return answer
