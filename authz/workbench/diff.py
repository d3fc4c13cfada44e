"""Which decisions a new policy changes.

Requests are endless, so both policies are asked about samples: for everything
that a request may name, one for each way in which the policies' names and
globs can tell requests apart (see `policy_samples`). So whoever has one tenant
or none is treated otherwise by the new policy only if a sample is. Those of
several tenants are asked about only by name. A decision can only change where a
statement matches that the policies do not share.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import NamedTuple

from jobworker.authz.identity import Identity
from jobworker.authz.policy.job_pattern import ONESELF, OWN_TENANT, is_about, split_pattern
from jobworker.authz.policy.judge import JobFacts, runs
from jobworker.authz.policy.policy import Decision, Policy
from jobworker.authz.policy.rules import (
    ACTIONS,
    ANY_MEMBER,
    ANYBODY,
    COVERED,
    EVERYWHERE,
    Grant,
    Rule,
)
from jobworker.authz.workbench.samples import lines, names

# They stand for everybody and everything that no policy names.
STRANGER = "somebody-else"
STRANGE_TENANT = "another-tenant"
_NEVER = datetime.max.replace(tzinfo=UTC)
_Request = tuple[str, JobFacts]


@dataclass(frozen=True, slots=True)
class Change:
    """A request that the new policy decides otherwise than the old."""

    identity: Identity
    action: str
    job: JobFacts
    old: Decision
    new: Decision


class Difference(NamedTuple):
    """What changes for those who were asked about.

    Not `complete` if the globs can tell apart more than was tried: then there
    may be further changes, also where there is none here.
    """

    changes: tuple[Change, ...]
    complete: bool


def difference(
    old: Policy, new: Policy, identities: Iterable[Identity] | None = None
) -> Difference:
    """Return the changed decisions of the identities; None is for everybody of one tenant or none.

    Of everybody, and of all that they may ask for, one sample of each kind is
    returned.
    """
    both = _Both(old, new)
    asked = both.samples() if identities is None else identities
    changes = tuple(change for identity in asked for change in both.changes(identity))
    return Difference(changes, both.complete)


class _Both:
    """Two policies, laid together. `complete` holds as long as no samples had to be left out."""

    def __init__(self, old: Policy, new: Policy) -> None:
        self.complete = True
        self._policies = old, new
        one, two = old.statements, new.statements
        self._held: defaultdict[str, set[Grant]] = defaultdict(set)
        for grant in (*one.grants, *two.grants):
            self._held[grant.member].add(grant)
        self._rules: defaultdict[str, list[Rule]] = defaultdict(list)
        for rule in dict.fromkeys((*one.rules, *two.rules)):
            self._rules[rule.subject].append(rule)
        self._changed_rules = set(one.rules) ^ set(two.rules)
        self._changed_grants = set(one.grants) ^ set(two.grants)

    def samples(self) -> Iterator[Identity]:
        """Yield everybody of one tenant or none whom a difference may be about."""
        about = {rule.subject for rule in self._changed_rules}
        about |= {grant.member for grant in self._changed_grants}
        if not about:
            return
        named = {*self._rules, *self._held}
        rules = [rule for some in self._rules.values() for rule in some]
        scopes = {grant.tenant for some in self._held.values() for grant in some} - {EVERYWHERE}
        users = self._names(STRANGER, _called("cn:", named), rules, owners=True)
        tenants = self._names(STRANGE_TENANT, _called("ou:", named) | scopes, rules, owners=False)
        for user, tenant in product(users, ("", *tenants)):
            identity = Identity(user, (tenant,) if tenant else (), "0", _NEVER)
            if not about.isdisjoint(self._subjects(identity)):
                yield identity

    def changes(self, identity: Identity) -> list[Change]:
        """Return what changes for somebody."""
        found: list[Change] = []
        for alike in self._requests(identity):
            # What no rule can tell apart changes together.
            if self._change(identity, alike[0]) is not None:
                changed = (self._change(identity, request) for request in alike)
                found += (change for change in changed if change is not None)
        return sorted(found, key=_order)

    def _change(self, identity: Identity, request: _Request) -> Change | None:
        old, new = (policy.decide(identity, *request) for policy in self._policies)
        return None if old.allowed == new.allowed else Change(identity, *request, old, new)

    def _requests(self, identity: Identity) -> Iterable[list[_Request]]:
        """Return what somebody might ask for that a differing rule is about, in lots alike."""
        subjects = self._subjects(identity)
        own = tuple(rule for one in sorted(subjects) for rule in self._rules.get(one, ()))
        differing = self._differing(own, subjects)
        started = tuple(rule for rule in own if "start" in COVERED[rule.action])
        lots: defaultdict[object, list[_Request]] = defaultdict(list)
        for tenant, owner in self._jobs(identity, subjects, own, differing):
            held = [policy.subjects_of(identity, tenant) for policy in self._policies]
            about = [rule for rule in own if is_about(rule.jobs, tenant, owner, identity)]
            for request in self._actions(identity, tenant, owner, started):
                met = frozenset(rule for rule in about if _covers(rule, *request))
                if not met.isdisjoint(differing):
                    lots[met, *held].append(request)
        return lots.values()

    def _jobs(
        self,
        identity: Identity,
        subjects: set[str],
        own: Iterable[Rule],
        differing: Iterable[Rule],
    ) -> dict[tuple[str, str], None]:
        """Return the jobs, by tenant and owner, that differing rules are about."""
        scopes = {grant.tenant for subject in subjects for grant in self._held.get(subject, ())}
        tenants = self._names(
            STRANGE_TENANT, {*identity.tenants, *scopes} - {EVERYWHERE}, own, owners=False
        )
        owners = self._names(STRANGER, {identity.common_name}, own, owners=True)
        jobs: dict[tuple[str, str], None] = {}
        for rule in differing:
            tenant_side, owner_side = split_pattern(rule.jobs)
            theirs = [one for one in owners if is_about(f"*/{owner_side}", "", one, identity)]
            for tenant in (*tenants, ""):
                if is_about(f"{tenant_side}/*", tenant, "", identity):
                    jobs.update(dict.fromkeys((tenant, owner) for owner in theirs))
        return jobs

    def _actions(
        self, identity: Identity, tenant: str, owner: str, started: tuple[Rule, ...]
    ) -> Iterator[_Request]:
        """Yield all that somebody might ask to do to such a job."""
        for action in ACTIONS:
            if action != "start":
                yield action, JobFacts(owner, tenant)
        # Nobody can start a job in another's name, or for a tenant they are not of.
        if owner == identity.common_name and tenant in (identity.tenants or ("",)):
            found, complete = lines(started)
            self.complete &= complete
            for line in found:
                yield "start", JobFacts(owner, tenant, *line)

    def _names(
        self, stranger: str, named: set[str], rules: Iterable[Rule], *, owners: bool
    ) -> list[str]:
        """Return names of users (`owners`) or tenants that rules and `named` tell apart."""
        globs = {split_pattern(rule.jobs)[owners] for rule in rules} - {ONESELF, OWN_TENANT}
        found, complete = names(stranger, frozenset(named), frozenset(globs))
        self.complete &= complete
        return [name for name in found if name]

    def _differing(self, own: Iterable[Rule], subjects: set[str]) -> set[Rule]:
        """Return which of one's own rules may come to decide where they did not, or no longer."""
        changed = {grant.role for grant in self._changed_grants if grant.member in subjects}
        roles = self._with_roles(changed)
        return {rule for rule in own if rule in self._changed_rules or rule.subject in roles}

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


def _covers(rule: Rule, action: str, job: JobFacts) -> bool:
    if action not in COVERED[rule.action]:
        return False
    return action != "start" or runs(rule.command, rule.arguments, rule.effect, job)


def _called(kind: str, subjects: Iterable[str]) -> set[str]:
    """Return the names in the subjects of a kind."""
    return {one.removeprefix(kind) for one in subjects if one.startswith(kind)} - {"*"}


def _order(change: Change) -> tuple[str, str, str, str, tuple[str, ...]]:
    job = change.job
    return job.tenant, job.owner, change.action, job.command, job.arguments
