"""Which decisions a new policy changes."""

from itertools import product
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import JobFacts, Policy
from jobworker.authz.policy.rules import ACTIONS, Statements
from jobworker.authz.workbench.diff import Change, difference
from tests.support.policies import ARGUMENTS, COMMANDS, TENANTS, USERS, identity, policy, statements

OLD = """\
roles:
  auditor: cn:ann
tenants:
  team-a: {lead: cn:dana}
rules:
  - {allow: [stop, read], to: ou:*, jobs: "{ou}/{cn}"}
  - {allow: [stop, read], to: role:lead, jobs: "*/*"}
  - {allow: read, to: role:auditor, jobs: "*/*"}
  - {allow: start, to: ou:team-a, jobs: "{ou}/{cn}", command: /usr/bin/python3}
"""


def told(old: str, new: str) -> set[str]:
    return {
        f"{change.identity} {change.action} {change.job.tenant}/{change.job.owner}"
        f" {'allowed' if change.new.allowed else 'refused'}"
        for change in difference(policy(old), policy(new)).changes
    }


def test_a_policy_is_no_different_from_itself() -> None:
    assert told(OLD, OLD) == set()
    assert told(OLD, OLD.replace("cn:ann", "[cn:ann]") + "\n# a comment\n") == set()


def test_a_new_lead_gains_the_tenants_jobs_and_the_old_one_loses_them() -> None:
    found = told(OLD, OLD.replace("cn:dana", "cn:eve"))
    for action in ("stop", "status", "output", "list"):
        assert f"cn=dana ou=team-a {action} team-a/somebody-else refused" in found
        assert f"cn=eve ou=another-tenant {action} team-a/somebody-else allowed" in found
        # One's own jobs one may stop in any case.
        assert f"cn=dana ou=team-a {action} team-a/dana refused" not in found
    assert {line.split()[0] for line in found} == {"cn=dana", "cn=eve"}
    assert all(" team-a/" in line for line in found)


def test_a_removed_deny_is_told_of_those_it_denied() -> None:
    denied = OLD + '  - {deny: "*", to: cn:mallory, jobs: "*/*"}\n'
    found = told(denied, OLD)
    assert "cn=mallory ou=another-tenant stop another-tenant/mallory allowed" in found
    assert all(line.startswith("cn=mallory") for line in found)


def test_a_widened_command_is_told_with_a_command_line() -> None:
    new = OLD.replace("/usr/bin/python3", "/usr/bin/*")
    found = difference(policy(OLD), policy(new)).changes
    assert {change.identity.tenants for change in found} == {("team-a",)}
    (change,) = [change for change in found if change.identity.common_name == "somebody-else"]
    assert (change.action, change.job.command) == ("start", "/usr/bin/x")
    assert not change.old.allowed
    assert change.new.allowed
    assert change.new.rule is not None
    assert change.new.rule.command == "/usr/bin/*"


def test_given_identities_alone_are_asked_about() -> None:
    new = OLD.replace("cn:ann", "cn:bob")
    found = difference(
        policy(OLD), policy(new), [identity("ann", "x"), identity("cy", "x")]
    ).changes
    assert found
    assert {str(change.identity) for change in found} == {"cn=ann ou=x"}
    assert {change.action for change in found} == {"status", "output", "list"}


# Beside the names that random policies hold, some that only their globs match.
PEOPLE = (*USERS, "dee", "ay", "po", "poy")
OUS = (*TENANTS, "ac", "c", "")
# What samples are to stand for: all that people of one tenant or none may ask for.
REQUESTS = [
    *(
        (identity(user, *filter(None, [ou])), action, JobFacts(owner, tenant))
        for user, ou, action, owner, tenant in product(PEOPLE, OUS, ACTIONS, PEOPLE, OUS)
        if action != "start"
    ),
    *(
        (identity(user, *filter(None, [ou])), "start", JobFacts(user, ou, command, arguments))
        for user, ou, command, arguments in product(PEOPLE, OUS, COMMANDS, ARGUMENTS)
    ),
]


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(statements(), statements(), st.randoms(use_true_random=True))
def test_samples_find_a_difference_where_there_is_one(
    one: Statements, two: Statements, random: Random
) -> None:
    asked = random.sample(REQUESTS, 1000)
    # One rule or one grant apart: what an edit does.
    for changed in (
        Statements((*one.rules, *two.rules[:1]), one.grants),
        Statements(one.rules, (*one.grants, *two.grants[:1])),
        Statements(one.rules[1:], one.grants),
    ):
        old, new = Policy(one), Policy(changed)
        found = difference(old, new)
        assert found.complete
        if not found.changes:
            assert not [request for request in asked if _differ(request, old, new)]
        assert all(_is_true(change, old, new) for change in found.changes)


def _differ(request: tuple[Identity, str, JobFacts], old: Policy, new: Policy) -> bool:
    return old.decide(*request).allowed != new.decide(*request).allowed


def _is_true(change: Change, old: Policy, new: Policy) -> bool:
    request = (change.identity, change.action, change.job)
    decisions = [one.decide(*request) for one in (old, new)]
    return decisions == [change.old, change.new] and change.old.allowed != change.new.allowed


@pytest.mark.parametrize("backwards", [False, True])
def test_an_empty_policy_differs_in_all_that_is_allowed(backwards: bool) -> None:
    one, two = (OLD, "") if not backwards else ("", OLD)
    verdicts = {line.rsplit(" ", 1)[1] for line in told(one, two)}
    assert verdicts == {"allowed" if backwards else "refused"}
