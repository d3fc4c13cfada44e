"""What an identity may do: a policy, read from a file, decided by casbin."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from jobworker.authz.identity import Identity
from jobworker.authz.names import shown
from jobworker.authz.policy.csv_form import read_csv
from jobworker.authz.policy.judge import JobFacts, Judge
from jobworker.authz.policy.rules import ACTIONS, PolicyError, Rule, Statements
from jobworker.authz.policy.yaml_form import read_yaml

__all__ = ["Decision", "JobFacts", "Policy", "PolicyError", "Rule", "load_policy"]

# So many decisions are remembered, of jobs with no more arguments than that.
REMEMBERED = 4096
MOST_ARGUMENTS = 64
MOST_CHARACTERS = 1024

_READERS = {".csv": read_csv, ".yaml": read_yaml, ".yml": read_yaml}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed, why in a sentence, and the rule that decided.

    `rule` is None when no rule was about the request, which is a denial.
    """

    allowed: bool
    reason: str
    rule: Rule | None


class Policy:
    """A policy that was read and found good; it never changes. Safe to share between threads.

    `version` is the SHA-256 of its file's content in hex.
    """

    def __init__(self, statements: Statements, version: str = "") -> None:
        self.statements = statements
        self.version = version
        self._judge = Judge(statements)
        # Of a policy that never changes, an answer is true for good.
        self._remembered = lru_cache(REMEMBERED)(self.decide_anew)

    def decide(self, identity: Identity, action: str, job: JobFacts) -> Decision:
        """Decide whether the identity may do the action (one of ACTIONS) to the job."""
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is not one of {', '.join(ACTIONS)}")
        if len(job.arguments) > MOST_ARGUMENTS or sum(map(len, job.arguments)) > MOST_CHARACTERS:
            return self.decide_anew(identity, action, job)
        return self._remembered(identity, action, job)

    def decide_anew(self, identity: Identity, action: str, job: JobFacts) -> Decision:
        """As `decide`, whatever was asked before."""
        allowed, rule = self._judge.decide(identity, action, job)
        return Decision(allowed, _reason(identity, action, job, rule, allowed=allowed), rule)

    def subjects_of(self, identity: Identity, tenant: str) -> frozenset[str]:
        """Return every subject that the identity is or holds for the jobs of a tenant."""
        return self._judge.subjects_of(identity, tenant)


def load_policy(path: Path) -> Policy:
    """Read a policy from a .csv, .yaml or .yml file.

    Raises:
        PolicyError: It cannot be read or is no policy; with file, line and column.
    """
    read = _READERS.get(path.suffix)
    if read is None:
        raise PolicyError(
            f"a policy's name ends in {', '.join(_READERS)}", None, "rename it", file=str(path)
        )
    try:
        content = path.read_bytes()
        text = content.decode()
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"is not UTF-8 text: {error}", file=str(path)) from error
    return Policy(read(text, str(path)), sha256(content).hexdigest())


def _reason(
    identity: Identity, action: str, job: JobFacts, rule: Rule | None, *, allowed: bool
) -> str:
    verdict = "allowed" if allowed else "refused"
    about = f"{action} {verdict} to {identity} for {job.tenant}/{job.owner}"
    if rule is not None:
        return f"{about}: {rule.effect} rule at {_short(rule)}"
    program = f" to run {shown(job.command)}" if action == "start" and job.command else ""
    return f"{about}: no rule allows it{program}"


def _short(rule: Rule) -> str:
    # Where the policy lies is nobody's business but its administrator's.
    return f"{Path(rule.place.file).name}:{rule.place.line}"
