"""What rules and grants must look like, whatever file they are read from."""

import graphlib
import shlex
from collections.abc import Iterable
from typing import NamedTuple

from jobworker.authz.names import objection_to_name
from jobworker.authz.policy.globs import ANY_RUN
from jobworker.authz.policy.job_pattern import ONESELF, OWN_TENANT
from jobworker.authz.policy.rules import (
    ANY_ARGUMENTS,
    ANY_COMMAND,
    ANY_MEMBER,
    ANYBODY,
    COVERED,
    EFFECTS,
    EVERYWHERE,
    NOBODY,
    Grant,
    PolicyError,
    Rule,
    Statements,
)
from jobworker.authz.yaml_text import Place, near

_KINDS = ("cn", "ou", "role")


class Text(NamedTuple):
    """A text, and where it stands."""

    text: str
    place: Place


class RuleTexts(NamedTuple):
    """A rule as it was written: the fields of Rule."""

    subject: Text
    action: Text
    jobs: Text
    effect: Text
    command: Text
    arguments: Text


def rule(texts: RuleTexts) -> Rule:
    """Return the rule that the texts make; it stands where its subject does.

    Raises:
        PolicyError: One of them means nothing.
    """
    subject, action, jobs, effect, command, arguments = texts
    _check_subject(subject)
    if action.text not in COVERED:
        raise _unknown("action", action, COVERED)
    _check_jobs(jobs)
    if effect.text not in EFFECTS:
        raise _unknown("effect", effect, EFFECTS)
    _check_command(command)
    _check_arguments(arguments)
    for text, anything in ((command, ANY_COMMAND), (arguments, ANY_ARGUMENTS)):
        if text.text != anything and action.text != "start":
            raise PolicyError(
                f"a command and arguments restrict `start`, not `{action.text}`",
                text.place,
                "make a rule of its own for start",
            )
    return Rule(
        subject.text,
        action.text,
        jobs.text,
        effect.text,
        command.text,
        arguments.text,
        subject.place,
        effect.place,
    )


def grant(member: Text, role: Text, tenant: Text) -> Grant:
    """Return the grant that the texts make; it stands where its member does.

    Raises:
        PolicyError: One of them means nothing.
    """
    if member.text != NOBODY:
        _check_subject(member)
    if not role.text.startswith("role:"):
        raise PolicyError(f"{role.text!r} is no role", role.place, f"write role:{role.text}")
    _check_subject(role)
    if tenant.text != EVERYWHERE:
        _check_name("tenant", tenant, tenant.text)
    return Grant(member.text, role.text, tenant.text, member.place)


def checked(statements: Statements) -> Statements:
    """Return the statements, once they are known to fit together.

    Raises:
        PolicyError: A role is named that nobody was granted, or holds itself.
    """
    roles = {one.role for one in statements.grants}
    members = (Text(one.member, one.place) for one in statements.grants)
    subjects = (Text(one.subject, one.place) for one in statements.rules)
    for named in (*members, *subjects):
        if named.text.startswith("role:") and named.text not in roles:
            raise PolicyError(
                f"{named.text} is held by nobody",
                named.place,
                near(named.text, roles) if roles else "",
            )
    _check_nesting(statements.grants)
    return statements


def _check_subject(subject: Text) -> None:
    if subject.text in (ANYBODY, ANY_MEMBER):
        return
    kind, colon, name = subject.text.partition(":")
    if not colon:
        raise PolicyError(
            f"{subject.text!r} is no subject",
            subject.place,
            "write cn:NAME, ou:TENANT or role:ROLE",
        )
    if kind not in _KINDS:
        raise PolicyError(f"{subject.text!r} is no subject", subject.place, near(kind, _KINDS))
    if "*" in name or "?" in name:
        raise PolicyError(
            f"{subject.text!r} is no subject: {ANYBODY} and {ANY_MEMBER} are the only globs here",
            subject.place,
            "give a role to those who are meant",
        )
    _check_name(_KIND_NAMES[kind], subject, name)


_KIND_NAMES = {"cn": "user", "ou": "tenant", "role": "role"}


def _check_name(kind: str, text: Text, name: str) -> None:
    if objection := objection_to_name(name):
        raise PolicyError(f"the {kind} {name!r} {objection}", text.place)


def _check_jobs(jobs: Text) -> None:
    tenant, slash, owner = jobs.text.partition("/")
    if not slash or "/" in owner:
        raise PolicyError(
            f"{jobs.text!r} does not name jobs",
            jobs.place,
            f"write TENANT/OWNER, such as {OWN_TENANT}/{ONESELF} or */*",
        )
    if ONESELF in tenant or OWN_TENANT in owner:
        raise PolicyError(
            f"in {jobs.text!r} the tenant comes first, then the owner",
            jobs.place,
            f"did you mean {OWN_TENANT}/{ONESELF}?",
        )
    for side, placeholder in ((tenant, OWN_TENANT), (owner, ONESELF)):
        if side != placeholder:
            _check_glob(side, placeholder, jobs)
    if not owner:
        raise PolicyError(f"{jobs.text!r} names no owner", jobs.place, "every owner is *")


def _check_glob(side: str, placeholder: str, jobs: Text) -> None:
    if "{" in side or "}" in side:
        raise PolicyError(
            f"{side!r} in {jobs.text!r} is no pattern",
            jobs.place,
            f"{placeholder} stands for a whole side of the slash",
        )
    literal = side.replace("*", "a").replace("?", "a")
    # A job whose owner has no tenant has the empty one.
    if literal and (objection := objection_to_name(literal)):
        raise PolicyError(f"{side!r} in {jobs.text!r} matches no name: it {objection}", jobs.place)


def _check_command(command: Text) -> None:
    pattern = command.text
    if not pattern:
        raise PolicyError("the command is empty", command.place, f"any command is {ANY_COMMAND}")
    _check_printable("command", command)
    if "/" not in pattern:
        return
    if not pattern.startswith("/"):
        raise PolicyError(
            f"the command {pattern!r} is neither an absolute path nor a name without slashes",
            command.place,
            f"did you mean /{pattern}?",
        )
    _check_path(pattern, command.place)


def _check_arguments(arguments: Text) -> None:
    _check_printable("arguments", arguments)
    try:
        words = shlex.split(arguments.text)
    except ValueError as error:
        raise PolicyError(
            f"the arguments {arguments.text!r} are not shell words: {error}", arguments.place
        ) from error
    for word in words:
        if word.startswith("/"):
            _check_path(word, arguments.place)
        elif ANY_RUN in word and word != ANY_RUN:
            raise PolicyError(
                f"{ANY_RUN} in {word!r} must be a word of its own, for any number of arguments",
                arguments.place,
                f"within an argument, write {word.replace(ANY_RUN, '*')}",
            )


def _check_path(pattern: str, place: Place) -> None:
    for part in pattern.split("/")[1:]:
        # The root itself is /.
        if part in (".", "..") or (not part and pattern != "/"):
            raise PolicyError(
                f"no path matches {pattern!r}", place, "leave out //, /./, /../ and a last /"
            )
        if ANY_RUN in part and part != ANY_RUN:
            raise PolicyError(
                f"{ANY_RUN} in {pattern!r} must stand between slashes, for any number of folders",
                place,
                f"within a name, write {part.replace(ANY_RUN, '*')}",
            )


def _check_printable(label: str, text: Text) -> None:
    if not text.text.isprintable():
        raise PolicyError(
            f"the {label} {text.text!r} holds a control character", text.place, "match it with ?"
        )


def _check_nesting(grants: Iterable[Grant]) -> None:
    """Refuse a role that holds itself, through others too, in any tenant."""
    held: dict[str, dict[str, Place]] = {}
    for one in grants:
        held.setdefault(one.member, {})[one.role] = one.place
    try:
        graphlib.TopologicalSorter(held).prepare()
    except graphlib.CycleError as error:
        # Each in the circle is held by the one after it.
        circle: list[str] = error.args[1][::-1]
        raise PolicyError(
            f"roles hold one another: {' -> '.join(circle)}", held[circle[0]][circle[1]]
        ) from error


def _unknown(kind: str, text: Text, known: Iterable[str]) -> PolicyError:
    return PolicyError(f"{text.text!r} is no {kind}", text.place, near(text.text, known))
