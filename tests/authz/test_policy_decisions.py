"""Who may do what under the example policy, and what a decision says of itself."""

from pathlib import Path

import pytest

from jobworker.authz.policy.policy import Decision, JobFacts, load_policy
from tests.support.policies import identity, policy

POLICY = load_policy(Path(__file__).parents[2] / "policies" / "policy.yaml")
ALICE = identity("alice", "team-a")
DANA = identity("dana", "team-a")
BOB = identity("bob", "team-b")
CY = identity("cy", "team-b")
ANN = identity("ann", "audit")
MALLORY = identity("mallory", "team-a")
PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize("action", ["start", "stop", "signal", "status", "output", "list"])
def test_members_manage_their_own_jobs_and_nobody_elses(action: str) -> None:
    own = JobFacts("alice", "team-a", "/bin/ls")
    assert POLICY.decide(ALICE, action, own).allowed
    for other in (JobFacts("dana", "team-a"), JobFacts("alice", "team-b"), JobFacts("bob", "")):
        assert not POLICY.decide(ALICE, action, other).allowed
    # A certificate without the tenant is not of somebody in it.
    assert not POLICY.decide(identity("alice"), action, own).allowed


@pytest.mark.parametrize("action", ["stop", "signal", "status", "output", "list"])
def test_a_lead_manages_the_tenants_jobs_and_no_others(action: str) -> None:
    assert POLICY.decide(DANA, action, JobFacts("alice", "team-a")).allowed
    assert not POLICY.decide(DANA, action, JobFacts("bob", "team-b")).allowed
    # In two tenants, one leads where one was made lead.
    both = identity("dana", "team-b", "team-a")
    assert POLICY.decide(both, action, JobFacts("alice", "team-a")).allowed
    assert not POLICY.decide(both, action, JobFacts("cy", "team-b")).allowed


@pytest.mark.parametrize("action", ["status", "output", "list"])
def test_an_auditor_reads_everything(action: str) -> None:
    for job in (JobFacts("alice", "team-a"), JobFacts("bob", "team-b"), JobFacts("cy", "")):
        assert POLICY.decide(ANN, action, job).allowed


@pytest.mark.parametrize("action", ["attach", "forward", "put", "get"])
def test_reading_is_neither_reaching_a_job_nor_its_files(action: str) -> None:
    """Policies of before say nothing of these: who may only read gets none of them."""
    assert not POLICY.decide(ANN, action, JobFacts("alice", "team-a")).allowed
    assert not POLICY.decide(DANA, action, JobFacts("alice", "team-a")).allowed


@pytest.mark.parametrize("action", ["start", "stop", "signal"])
def test_an_auditor_changes_nothing(action: str) -> None:
    assert not POLICY.decide(ANN, action, JobFacts("alice", "team-a", "/bin/ls")).allowed


def test_a_tenant_may_be_limited_to_commands() -> None:
    def may(command: str, *arguments: str) -> bool:
        return POLICY.decide(CY, "start", JobFacts("cy", "team-b", command, arguments)).allowed

    assert may(PYTHON, "/srv/team-b/report.py")
    assert may(PYTHON, "/srv/team-b/report.py", "--month", "may")
    assert not may(PYTHON)
    assert not may(PYTHON, "-c", "import os")
    assert not may(PYTHON, "/srv/team-b/../team-a/report.py")
    assert not may(PYTHON, "/srv/team-b/report.sh")
    assert not may("python3", "/srv/team-b/report.py")
    assert not may("/bin/sh", "/srv/team-b/report.py")


def test_a_deny_wins_over_every_allow() -> None:
    own = JobFacts("mallory", "team-a", "/bin/ls")
    decision = POLICY.decide(MALLORY, "start", own)
    assert not decision.allowed
    assert decision.rule is not None
    assert decision.rule.effect == "deny"


def test_a_refusal_says_what_was_refused_and_to_whom() -> None:
    assert POLICY.decide(BOB, "stop", JobFacts("alice", "team-a")) == Decision(
        allowed=False,
        reason="stop refused to cn=bob ou=team-b for team-a/alice: no rule allows it",
        rule=None,
    )
    start = POLICY.decide(BOB, "start", JobFacts("bob", "team-b", "/bin/sh\n"))
    assert start.reason == (
        "start refused to cn=bob ou=team-b for team-b/bob: no rule allows it to run '/bin/sh\\n'"
    )


def test_a_decision_names_its_rule_by_file_and_line() -> None:
    text = "rules:\n  - allow: stop\n    to: ou:a\n    jobs: '*/*'\n"
    text += "  - deny: stop\n    to: cn:eve\n    jobs: '*/*'\n"
    allowed = policy(text).decide(identity("bob", "a", "b"), "stop", JobFacts("x", ""))
    assert allowed.reason == "stop allowed to cn=bob ou=a,b for /x: allow rule at policy.yaml:3"
    denied = policy(text).decide(identity("eve", "a"), "stop", JobFacts("x", ""))
    assert denied.reason == "stop refused to cn=eve ou=a for /x: deny rule at policy.yaml:6"


def test_a_reason_shows_no_control_characters_and_no_end_of_text() -> None:
    for command in ("\x1b[2J", "\u202e", "x" * 100_000):
        reason = POLICY.decide(BOB, "start", JobFacts("bob", "team-b", command)).reason
        assert reason.isprintable()
        assert len(reason) < 200


@pytest.mark.parametrize("action", ["", "read", "*", "Start", "delete"])
def test_an_action_that_is_none_is_a_mistake_of_the_caller(action: str) -> None:
    with pytest.raises(ValueError, match="is not one of start"):
        POLICY.decide(ANN, action, JobFacts("alice", "team-a"))


HOSTILE_TEXTS = [
    "True",
    "1 == 1",
    "') || true || ('",
    "r.who",
    "p.subject",
    "eval(p.command)",
    "g(r.who, p.subject)",
    "__import__('os')",
    "keyMatch(r.action, '*')",
    "*",
    "**",
    "/**",
    "(a+)+$",
    "[a-z]*",
    "{cn}",
    "allow",
    "\0",
    "\n",
    "a" * 1_000_000,
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: ascii(text[:20]))
def test_no_command_or_argument_gains_a_right(text: str) -> None:
    for job in (
        JobFacts("cy", "team-b", text),
        JobFacts("cy", "team-b", text, (text,) * 10),
        JobFacts("cy", "team-b", PYTHON, (text,)),
        JobFacts("cy", "team-b", PYTHON, (text, "/srv/team-b/report.py")),
    ):
        assert not POLICY.decide(CY, "start", job).allowed


def test_a_start_with_very_many_arguments_is_decided_at_once() -> None:
    job = JobFacts("cy", "team-b", PYTHON, ("/srv/team-b/x.py", *["x"] * 200_000))
    assert POLICY.decide(CY, "start", job).allowed
