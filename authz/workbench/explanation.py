"""Why a policy decides as it does: the rules that matched, and those that nearly did."""

from collections.abc import Iterator
from dataclasses import dataclass

from jobworker.authz.identity import Identity
from jobworker.authz.names import shown
from jobworker.authz.policy.command_pattern import (
    allows_arguments,
    allows_command,
    denies_arguments,
    denies_command,
)
from jobworker.authz.policy.job_pattern import meant_by
from jobworker.authz.policy.judge import JobFacts, about
from jobworker.authz.policy.policy import Decision, Policy
from jobworker.authz.policy.rules import COVERED, Rule

MAX_NEAR = 5


@dataclass(frozen=True, slots=True)
class Near:
    """A rule that does not match, and each reason why."""

    rule: Rule
    unmet: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and what led to it.

    `subjects` are all that rules may call the identity, for the job's tenant.
    `matching` are the rules that match. `near` are the allows of the action
    that come nearest to matching, MAX_NEAR at most. Both are in the policy's
    order.
    """

    decision: Decision
    subjects: tuple[str, ...]
    matching: tuple[Rule, ...]
    near: tuple[Near, ...]


def explain(policy: Policy, identity: Identity, action: str, job: JobFacts) -> Explanation:
    """Return why the policy decides as it does. Looks at every rule, so it is not for requests."""
    subjects = policy.subjects_of(identity, job.tenant)
    judged = [
        Near(rule, tuple(_unmet(rule, subjects, identity, action, job)))
        for rule in policy.statements.rules
    ]
    missed = [
        one
        for one in judged
        if one.unmet and one.rule.effect == "allow" and action in COVERED[one.rule.action]
    ]
    fewest = min((len(one.unmet) for one in missed), default=0)
    return Explanation(
        decision=policy.decide(identity, action, job),
        subjects=tuple(sorted(subjects)),
        matching=tuple(one.rule for one in judged if not one.unmet),
        near=tuple(one for one in missed if len(one.unmet) == fewest)[:MAX_NEAR],
    )


def _unmet(
    rule: Rule, subjects: frozenset[str], identity: Identity, action: str, job: JobFacts
) -> Iterator[str]:
    if rule.subject not in subjects:
        yield f"it is for {rule.subject}"
    if action not in COVERED[rule.action]:
        yield f"it is about {rule.action}"
    if not about(rule.jobs, job, identity):
        yield f"it is about the jobs {_jobs(rule, identity)}"
    denies = rule.effect == "deny"
    if not (denies_command if denies else allows_command)(rule.command, job.command):
        yield f"its command is {rule.command}, not {shown(job.command)}"
    if not (denies_arguments if denies else allows_arguments)(rule.arguments, job.arguments):
        yield f"its arguments are {rule.arguments or '(none)'}"


def _jobs(rule: Rule, identity: Identity) -> str:
    """The jobs that a rule is about, in its own words and in the identity's."""
    meant = meant_by(rule.jobs, identity)
    if meant == (rule.jobs,):
        return rule.jobs
    return f"{rule.jobs}, here {' or '.join(meant) or 'none, as they have no tenant'}"
