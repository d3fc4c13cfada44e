"""What a policy is expected to decide: cases in a file beside it, tried before it takes effect.

The cases of policy.yaml, and of policy.csv, are in policy.cases.yaml:

    - who: cn=alice ou=team-a
      may: [start, stop]            # or may-not
      job: team-a/alice             # TENANT/OWNER
      command: /usr/bin/python3     # these two for start
      arguments: [-m, pytest]
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import yaml

from jobworker.authz.identity import Identity
from jobworker.authz.names import objection_to_name
from jobworker.authz.policy.judge import JobFacts
from jobworker.authz.policy.policy import Decision, Policy
from jobworker.authz.policy.rules import ACTIONS, COVERED, FIRST_ACTIONS, PolicyError
from jobworker.authz.policy.statements import Text
from jobworker.authz.policy.yaml_nodes import Entries, NodeReader, parse
from jobworker.authz.yaml_text import Place, near

_KEYS = ("who", "may", "may-not", "job", "command", "arguments")
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and whether it is to be allowed."""

    identity: Identity
    action: str
    job: JobFacts
    allowed: bool
    place: Place


class Failure(NamedTuple):
    """A case that came out otherwise."""

    case: Case
    decision: Decision

    def __str__(self) -> str:
        """Return a line with the place of the case, what was expected, and what came."""
        expected = "allowed" if self.case.allowed else "refused"
        return f"{self.case.place}: expected {expected}, but {self.decision.reason}"


class CasesFailed(PolicyError):
    """A policy does not decide as its cases expect."""

    def __init__(self, failures: list[Failure]) -> None:
        self.failures = failures
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        first = failures[0]
        expected = "allowed" if first.case.allowed else "refused"
        super().__init__(
            f"expected {expected}, but {first.decision.reason}{more}",
            first.case.place,
            "change the policy or the case",
        )


def cases_file(policy: Path) -> Path:
    """Return where the cases of a policy's file are, if it has any."""
    return policy.with_name(f"{policy.stem}.cases.yaml")


def load_cases(path: Path) -> tuple[Case, ...]:
    """Read a file of cases.

    Raises:
        PolicyError: It cannot be read, or a case means nothing.
    """
    try:
        return read_cases(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"is not UTF-8 text: {error}", file=str(path)) from error


def read_cases(text: str, file: str) -> tuple[Case, ...]:
    """Return the cases in a text; `file` is its name for messages. Raises PolicyError."""
    root = parse(text, file)
    if root is None:
        return ()
    read = NodeReader(file)
    return tuple(
        case for node in read.items(root, "the file of cases") for case in _cases(read, node)
    )


def failures(policy: Policy, cases: tuple[Case, ...]) -> list[Failure]:
    """Return the cases that the policy decides otherwise."""
    decided = ((case, policy.decide(case.identity, case.action, case.job)) for case in cases)
    return [
        Failure(case, decision) for case, decision in decided if decision.allowed != case.allowed
    ]


def parse_identity(text: Text) -> Identity:
    """Return who `cn=alice ou=team-a,team-b` is. Raises PolicyError."""
    words = text.text.split()
    fields = dict(word.partition("=")[::2] for word in words)
    if "cn" not in fields or not fields.keys() <= {"cn", "ou"} or len(fields) != len(words):
        raise PolicyError(
            f"{text.text!r} is nobody", text.place, "write cn=NAME, or cn=NAME ou=TENANT,TENANT"
        )
    tenants = tuple(dict.fromkeys(fields["ou"].split(","))) if "ou" in fields else ()
    for name in (fields["cn"], *tenants):
        if objection := objection_to_name(name):
            raise PolicyError(f"the name {name!r} {objection}", text.place)
    return Identity(fields["cn"], tenants, "0", _NEVER)


def parse_job(text: Text, command: str = "", arguments: tuple[str, ...] = ()) -> JobFacts:
    """Return the job of `TENANT/OWNER`; the tenant may be empty. Raises PolicyError."""
    tenant, slash, owner = text.text.partition("/")
    if not slash or objection_to_name(owner) or (tenant and objection_to_name(tenant)):
        raise PolicyError(
            f"{text.text!r} is no job", text.place, "write TENANT/OWNER, such as team-a/alice"
        )
    return JobFacts(owner, tenant, command, arguments)


def _cases(read: NodeReader, node: yaml.Node) -> Iterator[Case]:
    entries = read.mapping(node, "a case", _KEYS)
    for key in ("who", "job"):
        if key not in entries:
            raise PolicyError(f"the case has no `{key}`", read.place(node))
    if ("may" in entries) == ("may-not" in entries):
        raise PolicyError("a case has either may or may-not", read.place(node))
    allowed = "may" in entries
    key = "may" if allowed else "may-not"
    identity = parse_identity(read.text(entries["who"][1], "who"))
    job = parse_job(read.text(entries["job"][1], "job"), *_command(read, entries))
    for action in read.some_texts(entries[key][1], key):
        if action.text not in COVERED:
            raise PolicyError(
                f"{action.text!r} is no action", action.place, near(action.text, COVERED)
            )
        # Policies whose rules name each action go on passing a case of before that has `may: "*"`.
        known = FIRST_ACTIONS if allowed and action.text == "*" else ACTIONS
        for each in (one for one in known if one in COVERED[action.text]):
            yield Case(identity, each, job, allowed, action.place)


def _command(read: NodeReader, entries: Entries) -> tuple[str, tuple[str, ...]]:
    command = read.text(entries["command"][1], "command").text if "command" in entries else ""
    if "arguments" not in entries:
        return command, ()
    node = entries["arguments"][1]
    if isinstance(node, yaml.SequenceNode):
        return command, tuple(word.text for word in read.texts(node, "arguments"))
    text = read.text(node, "arguments")
    try:
        return command, tuple(shlex.split(text.text))
    except ValueError as error:
        raise PolicyError(
            f"the arguments {text.text!r} are not shell words: {error}", text.place
        ) from error
