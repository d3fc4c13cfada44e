"""The policy that decides now, and how a new one takes its place."""

import logging
from dataclasses import dataclass
from pathlib import Path

from jobworker.authz.identity import Identity
from jobworker.authz.policy.cases import CasesFailed, cases_file, failures, load_cases
from jobworker.authz.policy.policy import Decision, JobFacts, Policy, PolicyError, load_policy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of a reload.

    `changed` says whether another policy decides now. `version` is that of the
    policy which does. `error` says why the file was not taken; None if it was.
    """

    changed: bool
    version: str
    error: str | None


class PolicyInForce:
    """Decides by the policy in a file; a file that is no good leaves the one before in force.

    Decisions may be asked for from several threads while one reloads. `loads`
    counts the policies that came in force, `refusals` the reloads that failed.
    """

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            PolicyError: It is no policy, or does not decide as its cases expect.
        """
        self.path = path
        self._policy = load_tested(path)
        self.loads = 1
        self.refusals = 0

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def version(self) -> str:
        """The SHA-256 of the file that the policy in force was read from, in hex."""
        return self._policy.version

    def decide(self, identity: Identity, action: str, job: JobFacts) -> Decision:
        """Decide by the policy in force; see `Policy.decide`."""
        return self._policy.decide(identity, action, job)

    def reload(self) -> Reload:
        """Put what the file says now in force, if it is a policy and passes its cases."""
        try:
            policy = load_tested(self.path)
        except PolicyError as error:
            log.error("the policy stays as it was: %s", error)
            self.refusals += 1
            return Reload(changed=False, version=self.version, error=str(error))
        changed = policy.version != self.version
        self._policy = policy
        if changed:
            self.loads += 1
            log.info("a new policy is in force: %s, version %.12s", self.path, policy.version)
        return Reload(changed=changed, version=policy.version, error=None)


def load_tested(path: Path) -> Policy:
    """Load a policy and try the cases beside it, if there are any.

    Raises:
        PolicyError: It is no policy, its cases cannot be read, or some fail (CasesFailed).
    """
    policy = load_policy(path)
    cases = cases_file(path)
    if cases.exists():
        failed = failures(policy, load_cases(cases))
        if failed:
            raise CasesFailed(failed)
    return policy
