"""Which decisions a new policy changes.

Requests are endless, so both policies are asked about samples, made of the
names and command lines in them and of some that are in neither. A decision can
only change where a statement matches that the policies do not share.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import TypeVar

from jobworker.authz.globs import ANY_RUN
from jobworker.authz.identity import Identity
from jobworker.authz.job_pattern import is_about, split_pattern
from jobworker.authz.judge import JobFacts
from jobworker.authz.policy import Decision, Policy
from jobworker.authz.rules import (
    ANY_COMMAND,
    ANY_MEMBER,
    ANYBODY,
    COVERED,
    EVERYWHERE,
    Grant,
    Rule,
)

# They stand for everybody and everything that no policy names.
STRANGER = "somebody-else"
STRANGE_TENANT = "another-tenant"
STRANGE_COMMAND = "/any/other/command"
T = TypeVar("T")
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """A request that the new policy decides otherwise than the old."""

    identity: Identity
    action: str
    job: JobFacts
    old: Decision
    new: Decision


def changes(
    old: Policy, new: Policy, identities: Iterable[Identity] | None = None
) -> Iterator[Change]:
    """Yield the changed decisions of the identities, or of samples where none are given."""
    both = _Both(old, new)
    for identity in both.samples() if identities is None else identities:
        for action, job in both.requests(identity):
            before, after = (policy.decide(identity, action, job) for policy in (old, new))
            if before.allowed != after.allowed:
                yield Change(identity, action, job, before, after)


class _Both:
    """Two policies, laid together."""

    def __init__(self, old: Policy, new: Policy) -> None:
        one, two = old.statements, new.statements
        self._held: defaultdict[str, set[Grant]] = defaultdict(set)
        for grant in (*one.grants, *two.grants):
            self._held[grant.member].add(grant)
        self._rules: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in _unique((*one.rules, *two.rules)):
            self._rules[rule.subject].append(rule)
        self._changed_rules = set(one.rules) ^ set(two.rules)
        self._changed_grants = set(one.grants) ^ set(two.grants)

    def samples(self) -> list[Identity]:
        """Return everybody of one tenant or none whom a difference may be about."""
        named = {*self._rules, *self._held}
        about = {rule.subject for rule in self._changed_rules}
        about |= {grant.member for grant in self._changed_grants}
        tenants = [STRANGE_TENANT, *_names("ou:", named), *_sides(self._changed_rules, 0)]
        tenants += sorted({grant.tenant for grant in self._changed_grants} - {EVERYWHERE})
        users = [STRANGER, *_names("cn:", named)]
        everybody = product(users, [(), *((tenant,) for tenant in _unique(tenants))])
        return [
            identity
            for identity in (Identity(user, of, "0", _NEVER) for user, of in everybody)
            if not about.isdisjoint(self._subjects(identity))
        ]

    def requests(self, identity: Identity) -> list[tuple[str, JobFacts]]:
        """Return what the identity might ask for that a differing rule is about."""
        subjects = self._subjects(identity)
        own = [rule for subject in sorted(subjects) for rule in self._rules.get(subject, ())]
        scopes = {grant.tenant for subject in subjects for grant in self._held.get(subject, ())}
        tenants = [*identity.tenants, *sorted(scopes - {EVERYWHERE}), *_sides(own, 0)]
        owners = [identity.common_name, *_sides(own, 1), STRANGER]
        jobs = list(product(_unique([*tenants, STRANGE_TENANT, ""]), _unique(owners)))
        lines = list(product(_commands(own), _arguments(own)))
        asked: dict[tuple[str, JobFacts], None] = {}
        for rule in self._differing(own, subjects):
            for tenant, owner in jobs:
                if not is_about(rule.jobs, tenant, owner, identity):
                    continue
                for action in COVERED[rule.action] - {"start"}:
                    asked[action, JobFacts(owner, tenant)] = None
                if "start" in COVERED[rule.action] and _can_start(identity, tenant, owner):
                    for command, arguments in lines:
                        asked["start", JobFacts(owner, tenant, command, arguments)] = None
        return sorted(asked, key=_request_order)

    def _differing(self, own: Iterable[Rule], subjects: set[str]) -> list[Rule]:
        """Return which of one's own rules may come to decide where they did not, or no longer."""
        changed = {grant.role for grant in self._changed_grants if grant.member in subjects}
        roles = self._with_roles(changed)
        return [rule for rule in own if rule in self._changed_rules or rule.subject in roles]

    def _subjects(self, identity: Identity) -> set[str]:
        subjects = {ANYBODY, f"cn:{identity.common_name}"}
        if identity.tenants:
            subjects |= {ANY_MEMBER, *(f"ou:{tenant}" for tenant in identity.tenants)}
        return self._with_roles(subjects)

    def _with_roles(self, subjects: set[str]) -> set[str]:
        """Return the subjects and all roles they hold, in whatever tenant."""
        found = set(subjects)
        pending = list(subjects)
        while pending:
            further = {grant.role for grant in self._held.get(pending.pop(), ())} - found
            found |= further
            pending += further
        return found


def _can_start(identity: Identity, tenant: str, owner: str) -> bool:
    # Nobody can start a job in another's name, or for a tenant they are not of.
    return owner == identity.common_name and tenant in (identity.tenants or ("",))


def _names(kind: str, subjects: Iterable[str]) -> list[str]:
    names = {one.removeprefix(kind) for one in subjects if one.startswith(kind)}
    return sorted(names - {"*"})


def _sides(rules: Iterable[Rule], side: int) -> list[str]:
    """Return the tenants (0) or owners (1) that rules name, for a glob one that it matches."""
    named = sorted(split_pattern(rule.jobs)[side] for rule in rules)
    return _unique(_sample(one) for one in named if one != EVERYWHERE and "{" not in one)


def _commands(rules: Iterable[Rule]) -> list[str]:
    named = (_sample(rule.command) for rule in rules if rule.command not in (ANY_COMMAND, "*"))
    return _unique([STRANGE_COMMAND, *named])


def _arguments(rules: Iterable[Rule]) -> list[tuple[str, ...]]:
    words = (shlex.split(rule.arguments) for rule in rules)
    samples = (tuple(_sample(word) for word in line if word != ANY_RUN) for line in words)
    return _unique([(), *samples])


def _sample(pattern: str) -> str:
    """Return a text that the pattern matches."""
    return pattern.replace(ANY_RUN, "x").replace("*", "x").replace("?", "x")


def _request_order(request: tuple[str, JobFacts]) -> tuple[str, str, str, str, tuple[str, ...]]:
    action, job = request
    return job.tenant, job.owner, action, job.command, job.arguments


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
