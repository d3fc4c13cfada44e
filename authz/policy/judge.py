"""casbin, asked only about the rules that could matter.

An Enforcer evaluates its matcher for every rule there is. Here the rules lie in
an index by what they name literally, and the Enforcer sees those few that a
request can meet; that it decides the same as over all of them is tested.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import product

import casbin

from jobworker.authz.identity import Identity
from jobworker.authz.policy.command_pattern import (
    allows_arguments,
    allows_command,
    denies_arguments,
    denies_command,
    is_literal_path,
)
from jobworker.authz.policy.job_pattern import is_about, split_pattern
from jobworker.authz.policy.roles import Roles
from jobworker.authz.policy.rules import COVERED, Rule, Statements


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a policy may judge a job by.

    `owner` is the CN of who started it. `tenant` is the one OU it was started
    for, empty when its owner has none; that a job is started for a tenant of
    its starter's is the caller's to ensure. `command` and `arguments` are what
    is to be executed, as the client gave them.
    """

    owner: str
    tenant: str
    command: str = ""
    arguments: tuple[str, ...] = ()


# Subject, action, tenant, owner, command; None where a rule names none literally.
_Key = tuple[str, str, str | None, str | None, str | None]
_Row = tuple[str, ...]


class Judge:
    """Decides requests by the rules; may be used by several threads."""

    def __init__(self, statements: Statements) -> None:
        self._roles = Roles()
        self._enforcer = plain_enforcer(Statements((), statements.grants), self._roles, _Enforcer)
        self._rules: dict[_Row, Rule] = {}
        self._index: defaultdict[_Key, list[_Row]] = defaultdict(list)
        for rule in statements.rules:
            self._add(rule)
        # The Enforcer keeps a request's rules and names in itself while it decides.
        self._deciding = threading.Lock()

    def decide(self, identity: Identity, action: str, job: JobFacts) -> tuple[bool, Rule | None]:
        """Return casbin's decision and the rule that made it; None if no rule matched."""
        candidates = list(self._candidates(identity, action, job))
        with self._deciding:
            self._enforcer.model["p"]["p"].policy = candidates
            allowed, row = self._enforcer.enforce_ex(identity, action, job.tenant, job)
        return bool(allowed), self._rules[row] if row else None

    def subjects_of(self, identity: Identity, tenant: str) -> frozenset[str]:
        """Return every subject that the identity is or holds for the jobs of a tenant."""
        return self._roles.subjects_of(identity, tenant)

    def _add(self, rule: Rule) -> None:
        row = rule.row()
        if row in self._rules:
            return
        self._rules[row] = rule
        tenant, owner = (_literal(side) for side in split_pattern(rule.jobs))
        # A deny covers more spellings than it names.
        exact = rule.effect == "allow" and is_literal_path(rule.command)
        command = rule.command if exact else None
        for action in COVERED[rule.action]:
            self._index[rule.subject, action, tenant, owner, command].append(row)

    def _candidates(self, identity: Identity, action: str, job: JobFacts) -> Iterator[_Row]:
        subjects = self._roles.subjects_of(identity, job.tenant)
        commands = (job.command, None) if action == "start" else (None,)
        keys: Iterable[_Key] = product(
            subjects, (action,), (job.tenant, None), (job.owner, None), commands
        )
        for key in keys:
            if key in self._index:
                yield from self._index[key]


def plain_enforcer(
    statements: Statements,
    roles: casbin.rbac.RoleManager,
    kind: Callable[[casbin.Model], casbin.Enforcer] = casbin.Enforcer,
) -> casbin.Enforcer:
    """Return casbin's own Enforcer over the statements under model.conf."""
    text = resources.files("jobworker.policies").joinpath("model.conf").read_text()
    enforcer = kind(casbin.Enforcer.new_model(text=text))
    enforcer.add_function("covers", _covers)
    enforcer.add_function("about", about)
    enforcer.add_function("runs", runs)
    enforcer.set_named_role_manager("g", roles)
    enforcer.model["p"]["p"].policy = [rule.row() for rule in statements.rules]
    enforcer.model["g"]["g"].policy = [grant.row() for grant in statements.grants]
    enforcer.build_role_links()
    return enforcer


class _Enforcer(casbin.Enforcer):  # type: ignore[misc] # casbin has no types
    """Parses the matcher once; casbin would for every request, which takes 40 µs."""

    _parsed: object = None

    def _get_expression(self, expr: str, functions: dict[str, object] | None = None) -> object:
        if self._parsed is None:
            self._parsed = super()._get_expression(expr, functions)
        return self._parsed


def _literal(side: str) -> str | None:
    return None if any(mark in side for mark in "*?{") else side


def _covers(rule_action: str, action: str) -> bool:
    # casbin tries the matcher with empty texts when it has no rules.
    return action in COVERED.get(rule_action, ())


def about(jobs: str, job: JobFacts, identity: Identity) -> bool:
    """Whether a rule's jobs are, for the identity, about the job."""
    return is_about(jobs, job.tenant, job.owner, identity)


def runs(command: str, arguments: str, effect: str, job: JobFacts) -> bool:
    """Whether a rule's command and arguments are about what is to be executed."""
    if effect == "deny":
        return denies_command(command, job.command) and denies_arguments(arguments, job.arguments)
    return allows_command(command, job.command) and allows_arguments(arguments, job.arguments)
