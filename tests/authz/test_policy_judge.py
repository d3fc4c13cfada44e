"""The judge, which shows casbin few rules, decides as casbin does over all of them."""

from pathlib import Path

import casbin
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.peers.plain_casbin import Request, StockRoles, plain_casbin
from jobworker.authz.policy.policy import Policy, load_policy
from jobworker.authz.policy.rules import ACTIONS, Grant, Rule, Statements
from tests.support.policies import HERE, JobFacts, identity, requests, statements

POLICIES = Path(__file__).parents[2] / "policies"


@settings(max_examples=400, deadline=None)
@given(statements(), st.lists(requests(), min_size=1, max_size=30))
def test_random_policies_are_decided_as_by_casbin_itself(
    random: Statements, asked: list[Request]
) -> None:
    policy, casbin_decides = Policy(random), plain_casbin(random)
    for request in asked:
        decision = policy.decide(*request)
        assert decision.allowed == casbin_decides(request), (request, decision)
        # The rule that is named is one that by itself decides so.
        if decision.rule is not None:
            alone = Statements((decision.rule,), random.grants)
            assert plain_casbin(alone)(request) == decision.allowed == _allows(decision.rule)


def _allows(rule: Rule) -> bool:
    return rule.effect == "allow"


def test_an_empty_policy_allows_nothing() -> None:
    policy = Policy(Statements((), ()))
    for action in ACTIONS:
        for name in ("alice", "x"):
            decision = policy.decide(identity(name, "a"), action, JobFacts(name, "a", "/bin/ls"))
            assert not decision.allowed
            assert decision.rule is None


def test_roles_nest_deeper_than_casbin_looks() -> None:
    depth = 300
    chain = tuple(
        Grant(f"role:r{level}", f"role:r{level + 1}", "*", HERE) for level in range(depth)
    )
    grants = (Grant("cn:alice", "role:r0", "*", HERE), *chain)
    rule = Rule(f"role:r{depth}", "list", "*/*", "allow", "**", "**", HERE)
    policy = Policy(Statements((rule,), grants))
    assert policy.decide(identity("alice"), "list", JobFacts("bob", "b")).allowed
    assert not policy.decide(identity("bob"), "list", JobFacts("bob", "b")).allowed


def test_casbin_reads_the_example_policy_by_itself() -> None:
    policy = load_policy(POLICIES / "policy.csv")
    model, csv = str(POLICIES / "model.conf"), str(POLICIES / "policy.csv")
    loaded = casbin.Enforcer(model)
    loaded.set_named_role_manager("g", StockRoles())
    loaded.set_adapter(casbin.FileAdapter(csv))
    loaded.load_policy()
    assert [tuple(row) for row in loaded.get_policy()] == [
        rule.row() for rule in policy.statements.rules
    ]
    assert [tuple(row) for row in loaded.get_grouping_policy()] == [
        grant.row() for grant in policy.statements.grants
    ]


@given(statements(), st.lists(requests(), min_size=1, max_size=10))
def test_a_decision_that_is_remembered_is_the_one_that_would_be_made_anew(
    random: Statements, asked: list[Request]
) -> None:
    policy = Policy(random)
    for request in [*asked, *asked]:
        assert policy.decide(*request) == policy.decide_anew(*request)
