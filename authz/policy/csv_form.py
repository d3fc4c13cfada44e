"""Reads and writes policies as CSV, casbin's own form.

    p, SUBJECT, ACTION, JOBS, EFFECT[, COMMAND[, ARGUMENTS]]
    g, MEMBER, ROLE[, TENANT]

A field may be quoted (RFC 4180). Blank lines and lines that begin with # are skipped.
"""

import re
from collections.abc import Iterator

from jobworker.authz.policy.rules import (
    ANY_ARGUMENTS,
    ANY_COMMAND,
    EVERYWHERE,
    Grant,
    PolicyError,
    Rule,
    Statements,
)
from jobworker.authz.policy.statements import RuleTexts, Text, checked, grant, rule
from jobworker.authz.yaml_text import Place, near

_FIELD = re.compile(
    r"""(?>\s*)(?:"(?P<quoted>(?:[^"]|"")*)"\s*|(?P<plain>[^",][^,]*|))(?P<end>,|$)"""
)


def read_csv(text: str, file: str) -> Statements:
    """Return what a policy says; `file` is its name for messages.

    Raises:
        PolicyError: A line means nothing, or the whole does not fit together.
    """
    rules: list[Rule] = []
    grants: list[Grant] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kind, *fields = _fields(line, file, number)
        if kind.text == "p":
            rules.append(_rule(kind, fields))
        elif kind.text == "g":
            grants.append(_grant(kind, fields))
        else:
            raise PolicyError(
                f"a line begins with p or g, not {kind.text!r}", kind.place, near(kind.text, "pg")
            )
    return checked(Statements(tuple(rules), tuple(grants)))


def write_csv(statements: Statements) -> str:
    """Return the policy as CSV, which `read_csv` reads as the same statements."""
    lines = [("g", *one.row()) for one in statements.grants]
    lines += [("p", *one.row()) for one in statements.rules]
    return "".join(f"{', '.join(map(_quoted, line))}\n" for line in lines)


def _rule(kind: Text, fields: list[Text]) -> Rule:
    if not 4 <= len(fields) <= 6:
        raise PolicyError(
            f"a rule has 4 to 6 fields after the p, not {len(fields)}",
            kind.place,
            "write p, SUBJECT, ACTION, JOBS, EFFECT[, COMMAND[, ARGUMENTS]]",
        )
    rest = (ANY_COMMAND, ANY_ARGUMENTS)[len(fields) - 4 :]
    return rule(RuleTexts(*fields, *(Text(text, kind.place) for text in rest)))


def _grant(kind: Text, fields: list[Text]) -> Grant:
    if not 2 <= len(fields) <= 3:
        raise PolicyError(
            f"a grant has 2 or 3 fields after the g, not {len(fields)}",
            kind.place,
            "write g, MEMBER, ROLE[, TENANT]",
        )
    tenant = fields[2] if len(fields) == 3 else Text(EVERYWHERE, kind.place)
    return grant(fields[0], fields[1], tenant)


def _fields(line: str, file: str, number: int) -> Iterator[Text]:
    at, more = 0, True
    while more:
        found = _FIELD.match(line, at)
        if found is None:
            raise PolicyError(
                "the quotes of this field do not match",
                Place(file, number, at + 1),
                'a quote within quotes is written ""',
            )
        name = "plain" if found["quoted"] is None else "quoted"
        value = found[name].strip() if name == "plain" else found[name].replace('""', '"')
        yield Text(value, Place(file, number, found.start(name) + 1))
        at, more = found.end(), found["end"] == ","


def _quoted(field: str) -> str:
    if field and not re.search(r'^["\s]|,|\s$', field):
        return field
    return '"' + field.replace('"', '""') + '"'
