"""The rules that are about an identity: those, and no others, that a request of its can meet."""

from hypothesis import given

from jobworker.authz.identity import Identity
from jobworker.authz.policy.judge import JobFacts
from jobworker.authz.policy.policy import Policy
from jobworker.authz.policy.rights import may_everywhere, may_somewhere, rights_of
from jobworker.authz.policy.rules import Rule, Statements
from tests.support.policies import identity, policy, requests, statements


@given(statements(), requests())
def test_a_rule_that_decides_is_told(
    stated: Statements, request: tuple[Identity, str, JobFacts]
) -> None:
    asker, action, job = request
    judged = Policy(stated)
    rule = judged.decide(asker, action, job).rule
    told: list[Rule] = [right.rule for right in rights_of(judged, asker)]
    assert rule is None or rule in told


def test_own_names_are_filled_in() -> None:
    judged = policy('rules:\n  - {allow: read, to: "cn:*", jobs: "{ou}/{cn}"}\n')
    (right,) = rights_of(judged, identity("bob", "a", "b"))
    assert right.jobs == ("a/bob", "b/bob")
    # No job can be that of a tenant of somebody without one.
    assert list(rights_of(judged, identity("cy"))) == []


def test_a_role_for_some_tenants_is_told_with_them() -> None:
    judged = policy("""\
roles:
  auditor: cn:ann
tenants:
  a: {lead: "cn:dana"}
  b: {lead: "cn:dana"}
rules:
  - {allow: stop, to: "role:lead", jobs: "*/*"}
  - {allow: read, to: "role:auditor", jobs: "*/*"}
""")
    (right,) = rights_of(judged, identity("dana", "a"))
    assert (right.rule.action, right.tenants, right.place) == ("stop", ("a", "b"), "policy.yaml:7")
    (right,) = rights_of(judged, identity("ann"))
    assert (right.rule.action, right.tenants) == ("read", ())


def test_what_is_everywhere_is_denied_nowhere() -> None:
    def judged(*rules: str) -> tuple[bool, bool]:
        text = "".join(f"  - {{{rule}}}\n" for rule in rules)
        stated = policy(f"tenants:\n  a: {{lead: 'cn:dana'}}\nrules:\n{text}")
        asker = identity("dana", "a")
        return may_somewhere(stated, asker, "audit"), may_everywhere(stated, asker, "audit")

    everywhere = "allow: audit, to: 'cn:dana', jobs: '*/*'"
    unused = "allow: stop, to: 'role:lead', jobs: 'a/*'"
    assert judged(everywhere, unused) == (True, True)
    assert judged("allow: '*', to: 'ou:a', jobs: '*/*'", unused) == (True, True)
    assert judged("allow: audit, to: 'cn:dana', jobs: '*/dana'", unused) == (True, False)
    # A role for some tenants is for those alone, whatever jobs its rule is about.
    assert judged("allow: audit, to: 'role:lead', jobs: '*/*'") == (True, False)
    assert judged(everywhere, "deny: '*', to: 'cn:dana', jobs: 'b/*'", unused) == (True, False)
    assert judged("allow: read, to: 'cn:dana', jobs: '*/*'", unused) == (False, False)
