"""What a policy is made of: rules and role grants, each with the place it was read from."""

from dataclasses import dataclass, field
from typing import NamedTuple

from jobworker.authz.errors import AuthzError
from jobworker.authz.yaml_text import Place

# Those that there were when the first policies were written.
FIRST_ACTIONS = ("start", "stop", "signal", "status", "output", "list")
ACTIONS = (*FIRST_ACTIONS, "attach", "forward", "put", "get", "audit", "renew")
# What a rule may name as its action -> the actions it covers.
COVERED = {
    **{action: frozenset({action}) for action in ACTIONS},
    "read": frozenset({"status", "output", "list"}),
    "*": frozenset(ACTIONS),
}
EFFECTS = ("allow", "deny")
# Every identity is one of the first, every one with an OU one of the second,
# none is the third.
ANYBODY = "cn:*"
ANY_MEMBER = "ou:*"
NOBODY = "nobody"
EVERYWHERE = "*"
ANY_COMMAND = "**"
ANY_ARGUMENTS = "**"


class PolicyError(AuthzError):
    """A policy cannot be used: `problem` says why, `suggestion` what may have been meant.

    `place` is None when the file as a whole is at fault.
    """

    def __init__(
        self, problem: str, place: Place | None = None, suggestion: str = "", *, file: str = ""
    ) -> None:
        self.place = place
        self.file = place.file if place else file
        self.problem = problem
        self.suggestion = suggestion
        where = f"{place.file}:{place.line}:{place.column}" if place else file
        hint = f"; {suggestion}" if suggestion else ""
        super().__init__(f"{where}: {problem}{hint}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One casbin rule.

    `subject` is cn:NAME, ou:NAME, role:NAME, cn:* or ou:*; `action` a key of
    COVERED; `jobs` TENANT/OWNER (see `job_pattern`); `effect` allow or deny;
    `command` and `arguments` patterns (see `command_pattern`), which only a
    rule for `start` may narrow. `whole` is the same for those that one rule of
    the file has made: one for each of its subjects, actions, jobs and commands.
    """

    subject: str
    action: str
    jobs: str
    effect: str
    command: str
    arguments: str
    place: Place = field(compare=False)
    whole: Place | None = field(compare=False, default=None)

    def row(self) -> tuple[str, ...]:
        """Return the fields in the order of the policy definition in model.conf."""
        return (
            self.subject,
            self.action,
            self.jobs,
            self.effect,
            self.command,
            self.arguments,
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """`member` (a subject, or `nobody`) holds `role` for the jobs of `tenant`; `*` is all jobs."""

    member: str
    role: str
    tenant: str
    place: Place = field(compare=False)

    def row(self) -> tuple[str, ...]:
        """Return the fields in the order of the role definition in model.conf."""
        return (self.member, self.role, self.tenant)


class Statements(NamedTuple):
    """All that a policy says."""

    rules: tuple[Rule, ...]
    grants: tuple[Grant, ...]
