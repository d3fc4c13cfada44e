"""Reads and writes policies as YAML.

    roles:                      # role -> who holds it, for the jobs of every tenant
      auditor: [cn:ann, ou:audit]
    tenants:                    # tenant -> role -> who holds it, for that tenant's jobs
      team-a:
        lead: cn:dana
    rules:
      - allow: [start, stop]    # or deny
        to: ou:*
        jobs: "{ou}/{cn}"
      - allow: start
        to: ou:team-a
        jobs: "{ou}/{cn}"
        command: /usr/bin/python3
        arguments: -m pytest **  # or a list with a pattern for each argument

Wherever there is one text there may be a list of them, except in arguments.
"""

import shlex
from collections.abc import Iterator
from itertools import product

import yaml

from jobworker.authz.policy.rules import (
    ANY_ARGUMENTS,
    ANY_COMMAND,
    EFFECTS,
    EVERYWHERE,
    NOBODY,
    Grant,
    PolicyError,
    Rule,
    Statements,
)
from jobworker.authz.policy.statements import RuleTexts, Text, checked, grant, rule
from jobworker.authz.policy.yaml_nodes import Entries, NodeReader, parse

_SECTIONS = ("roles", "tenants", "rules")
_RULE_KEYS = ("allow", "deny", "to", "jobs", "command", "arguments")
_MISSING = {
    "to": "say whom it is for, such as `to: ou:team-a`",
    "jobs": 'say which jobs it is about, such as `jobs: "{ou}/{cn}"`',
}


def read_yaml(text: str, file: str) -> Statements:
    """Return what a policy says; `file` is its name for messages.

    Raises:
        PolicyError: It is not YAML, or means nothing, or does not fit together.
    """
    read = NodeReader(file)
    root = parse(text, file)
    if root is None:
        return Statements((), ())
    sections = read.mapping(root, "the policy", _SECTIONS)
    grants: list[Grant] = []
    rules: list[Rule] = []
    if "roles" in sections:
        everywhere = Text(EVERYWHERE, read.place(root))
        grants += _grants(read, sections["roles"][1], everywhere)
    if "tenants" in sections:
        for tenant, roles in read.mapping(sections["tenants"][1], "tenants").values():
            grants += _grants(read, roles, tenant)
    if "rules" in sections:
        for node in read.items(sections["rules"][1], "rules"):
            rules += _rules(read, node)
    return checked(Statements(tuple(rules), tuple(grants)))


def _grants(read: NodeReader, node: yaml.Node, tenant: Text) -> Iterator[Grant]:
    for role, members in read.mapping(node, "roles").values():
        named = Text(f"role:{role.text}", role.place)
        texts = read.texts(members, f"the members of {role.text}")
        for member in texts or [Text(NOBODY, read.place(members))]:
            yield grant(member, named, tenant)


def _rules(read: NodeReader, node: yaml.Node) -> Iterator[Rule]:
    entries = read.mapping(node, "a rule", _RULE_KEYS)
    effect = _effect(read, node, entries)
    for key, hint in _MISSING.items():
        if key not in entries:
            raise PolicyError(f"the rule has no `{key}`", read.place(node), hint)
    commands = [Text(ANY_COMMAND, effect.place)]
    if "command" in entries:
        commands = read.some_texts(entries["command"][1], "command")
    arguments = Text(ANY_ARGUMENTS, effect.place)
    if "arguments" in entries:
        arguments = _words(read, entries["arguments"][1])
    for subject, action, jobs, command in product(
        read.some_texts(entries["to"][1], "to"),
        read.some_texts(entries[effect.text][1], effect.text),
        read.some_texts(entries["jobs"][1], "jobs"),
        commands,
    ):
        yield rule(RuleTexts(subject, action, jobs, effect, command, arguments))


def _effect(read: NodeReader, node: yaml.Node, entries: Entries) -> Text:
    effects = [entries[effect][0] for effect in EFFECTS if effect in entries]
    if len(effects) != 1:
        raise PolicyError(
            "a rule has either allow or deny" + (", not both" if effects else ""),
            read.place(node),
            "write `allow: start` or `deny: start`",
        )
    return effects[0]


def _words(read: NodeReader, node: yaml.Node) -> Text:
    if isinstance(node, yaml.SequenceNode):
        words = read.texts(node, "arguments")
        return Text(shlex.join(word.text for word in words), read.place(node))
    return read.text(node, "arguments")
