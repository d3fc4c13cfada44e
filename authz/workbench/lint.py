"""Whether a file is a policy that a server would take, and what in it is probably not meant."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobworker.authz.policy.in_force import load_tested
from jobworker.authz.policy.rules import ANY_COMMAND, PolicyError, Rule, Statements
from jobworker.authz.yaml_text import Place


class Examined(msgspec.Struct, frozen=True):
    """What was found of a file: `error` if it is no good, else the rest.

    `version` is the SHA-256 of its content in hex, `rules` and `grants` are
    their numbers, `doubts` sentences.
    """

    file: str
    error: str | None = None
    version: str = ""
    rules: int = 0
    grants: int = 0
    doubts: tuple[str, ...] = ()


class Doubt(NamedTuple):
    """A statement to look at again."""

    place: Place
    problem: str

    def __str__(self) -> str:
        """Return file, line and problem."""
        return f"{self.place}: {self.problem}"


def examine(file: Path) -> Examined:
    """Read a policy and try its cases, as a server would."""
    try:
        policy = load_tested(file)
    except PolicyError as error:
        return Examined(str(file), str(error))
    return Examined(
        str(file),
        None,
        policy.version,
        len({rule.whole for rule in policy.statements.rules}),
        len(policy.statements.grants),
        tuple(map(str, doubts(policy.statements))),
    )


def doubts(statements: Statements) -> Iterator[Doubt]:
    """Yield what an administrator should look at again, in the order of the file."""
    first: dict[Rule, Place] = {}
    for rule in statements.rules:
        if rule in first:
            yield Doubt(rule.place, f"says the same as line {first[rule].line}")
        first.setdefault(rule, rule.place)
        if rule.effect == "allow" and _is_name(rule.command):
            yield Doubt(
                rule.place,
                f"allows the command {rule.command} wherever it is found on the job's PATH, "
                "which its caller may set; an absolute path is safer",
            )
        if rule.effect == "deny" and rule.command not in (ANY_COMMAND, "*"):
            yield Doubt(
                rule.place,
                f"denies the command {rule.command}, but not a copy of it; "
                "to limit what runs, allow what may",
            )
    held = {rule.subject for rule in statements.rules} | {
        grant.member for grant in statements.grants
    }
    for grant in statements.grants:
        if grant.role not in held:
            yield Doubt(grant.place, f"grants {grant.role}, which no rule is for")
            held.add(grant.role)


def _is_name(command: str) -> bool:
    return "/" not in command and command not in (ANY_COMMAND, "*")
