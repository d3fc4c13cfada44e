"""Writes policies as the YAML that `policy_yaml` reads."""

from itertools import groupby
from typing import TypedDict

import yaml

from jobworker.authz.policy.rules import (
    ANY_ARGUMENTS,
    ANY_COMMAND,
    EVERYWHERE,
    NOBODY,
    Grant,
    Rule,
    Statements,
)

_Roles = dict[str, "str | _Inline"]


class _Inline(list[str]):
    """A list that is written on one line."""


class _Document(TypedDict, total=False):
    roles: _Roles
    tenants: dict[str, _Roles]
    rules: list[dict[str, "str | _Inline"]]


def write_yaml(statements: Statements) -> str:
    """Return the policy as YAML, which `read_yaml` reads as the same statements."""
    document: _Document = {}
    by_tenant: dict[str, list[Grant]] = {}
    for grant in statements.grants:
        by_tenant.setdefault(grant.tenant, []).append(grant)
    if EVERYWHERE in by_tenant:
        document["roles"] = _roles(by_tenant.pop(EVERYWHERE))
    if by_tenant:
        document["tenants"] = {tenant: _roles(grants) for tenant, grants in by_tenant.items()}
    if statements.rules:
        document["rules"] = [
            _rule(rules[0], [rule.action for rule in rules])
            for _, group in groupby(statements.rules, _all_but_the_action)
            if (rules := list(group))
        ]
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _roles(grants: list[Grant]) -> _Roles:
    members: dict[str, list[str]] = {}
    for grant in grants:
        members.setdefault(grant.role.removeprefix("role:"), []).append(grant.member)
    return {
        role: _Inline() if names == [NOBODY] else _one_or_several(names)
        for role, names in members.items()
    }


def _rule(rule: Rule, actions: list[str]) -> dict[str, "str | _Inline"]:
    entries: dict[str, str | _Inline] = {
        rule.effect: _one_or_several(actions),
        "to": rule.subject,
        "jobs": rule.jobs,
    }
    if rule.command != ANY_COMMAND:
        entries["command"] = rule.command
    if rule.arguments != ANY_ARGUMENTS:
        entries["arguments"] = rule.arguments
    return entries


def _all_but_the_action(rule: Rule) -> tuple[str, ...]:
    # Rules about a command are for `start` alone.
    return (rule.subject, rule.jobs, rule.effect, rule.command, rule.arguments)


def _one_or_several(names: list[str]) -> "str | _Inline":
    return names[0] if len(names) == 1 else _Inline(names)


class _Dumper(yaml.SafeDumper):
    """Writes each _Inline on its line."""


_Dumper.add_representer(
    _Inline,
    lambda dumper, texts: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", texts, flow_style=True
    ),
)
