"""Cases kept beside a policy, and the policy that takes effect only if they hold."""

import threading
from pathlib import Path

import pytest

from jobworker.authz.policy.cases import (
    CasesFailed,
    cases_file,
    failures,
    load_cases,
    read_cases,
)
from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.authz.policy.policy import JobFacts, PolicyError, load_policy
from jobworker.authz.policy.rules import ACTIONS, FIRST_ACTIONS
from tests.support.policies import identity

POLICIES = Path(__file__).parents[2] / "policies"
ALLOWS = 'rules:\n  - {allow: stop, to: "cn:*", jobs: "*/*"}\n'
DENIES = ALLOWS + '  - {deny: stop, to: "cn:bob", jobs: "*/*"}\n'
CASES = "- {who: cn=alice, may: stop, job: a/bob}\n"
ALICE, BOB = identity("alice"), identity("bob")
JOB = JobFacts("cy", "a")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(ALLOWS)
    return path


@pytest.mark.parametrize("form", ["policy.yaml", "policy.csv"])
def test_the_examples_decide_as_their_cases_expect(form: str) -> None:
    path = POLICIES / form
    cases = load_cases(cases_file(path))
    assert len(cases) > 40
    assert failures(load_policy(path), cases) == []


def test_every_example_case_would_notice_the_opposite() -> None:
    cases = load_cases(cases_file(POLICIES / "policy.yaml"))
    policy = load_policy(POLICIES / "policy.yaml")
    for case in cases:
        decision = policy.decide(case.identity, case.action, case.job)
        assert decision.allowed == case.allowed
    assert {case.allowed for case in cases} == {True, False}


def test_a_case_stands_for_each_of_its_actions() -> None:
    text = "- {who: 'cn=a ou=x,y', may-not: [read, stop], job: x/b}\n"
    cases = read_cases(text, "c")
    assert [case.action for case in cases] == ["status", "output", "list", "stop"]
    assert {case.identity.tenants for case in cases} == {("x", "y")}
    assert {case.job for case in cases} == {JobFacts("b", "x")}
    assert not any(case.allowed for case in cases)


def test_all_that_one_may_is_what_there_was_when_the_case_was_written() -> None:
    """A policy that names each action went on being taken when there were more of them."""
    case = "- {{who: cn=a, {}: '*', job: x/a}}\n"
    may, may_not = (read_cases(case.format(key), "c") for key in ("may", "may-not"))
    assert [one.action for one in may] == [*FIRST_ACTIONS]
    assert [one.action for one in may_not] == [*ACTIONS]


def test_a_case_may_have_a_command_line() -> None:
    text = "- {{who: cn=a, may: start, job: /a, command: /bin/ls, arguments: {}}}\n"
    for words in ("[-l, a b]", "\"-l 'a b'\""):
        (case,) = read_cases(text.format(words), "c")
        assert case.job == JobFacts("a", "", "/bin/ls", ("-l", "a b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {may: stop, job: a/b}", "c:1:3: the case has no `who`"),
        ("- {who: cn=a, may: stop}", "c:1:3: the case has no `job`"),
        ("- {who: cn=a, job: a/b}", "c:1:3: a case has either may or may-not"),
        ("- {who: a, may: stop, job: a/b}", "c:1:9: 'a' is nobody; write cn=NAME"),
        ("- {who: cn=a cn=b, may: stop, job: a/b}", "c:1:9: 'cn=a cn=b' is nobody"),
        ("- {who: cn=a*, may: stop, job: a/b}", "c:1:9: the name 'a\\*' may only hold"),
        ("- {who: cn=a, may: stop, job: b}", "c:1:31: 'b' is no job; write TENANT/OWNER"),
        ("- {who: cn=a, may: stop, job: '*/b'}", "c:1:31: '\\*/b' is no job"),
        ("- {who: cn=a, may: stpo, job: a/b}", "c:1:20: 'stpo' is no action; did you mean stop?"),
        ("- {who: cn=a, my: stop, job: a/b}", "c:1:15: a case has no key 'my'; did you mean may?"),
        ("a: b", "c:1:1: the file of cases must be a list"),
    ],
)
def test_a_case_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=f"^{message}"):
        read_cases(text, "c")


def test_a_failed_case_is_told_with_both_places(file: Path) -> None:
    file.write_text(DENIES)
    cases = read_cases("- {who: cn=bob, may: stop, job: a/cy}\n" + CASES, "c.yaml")
    (failure,) = failures(load_policy(file), cases)
    assert str(failure) == (
        "c.yaml:1: expected allowed, but stop refused to cn=bob for a/cy: "
        "deny rule at policy.yaml:3"
    )


def test_a_policy_that_fails_its_cases_is_not_loaded(file: Path) -> None:
    cases_file(file).write_text("- {who: cn=bob, may-not: [stop, start], job: a/cy}\n")
    with pytest.raises(CasesFailed, match="expected refused, but stop allowed to cn=bob") as caught:
        PolicyInForce(file)
    assert len(caught.value.failures) == 1
    assert caught.value.place is not None
    assert caught.value.place.file == str(cases_file(file))


def test_a_new_policy_takes_effect(file: Path) -> None:
    policy = PolicyInForce(file)
    before = policy.version
    assert policy.decide(BOB, "stop", JOB).allowed
    file.write_text(DENIES)
    assert policy.decide(BOB, "stop", JOB).allowed
    reload = policy.reload()
    assert reload.changed
    assert reload.error is None
    assert reload.version == policy.version != before
    assert not policy.decide(BOB, "stop", JOB).allowed


def test_an_unchanged_policy_is_no_change(file: Path) -> None:
    policy = PolicyInForce(file)
    reload = policy.reload()
    assert (reload.changed, reload.version, reload.error) == (False, policy.version, None)


@pytest.mark.parametrize(
    ("text", "cases", "error"),
    [
        ("rules: [", CASES, "policy.yaml:"),
        (DENIES.replace("deny", "dney"), CASES, "policy.yaml:3:6: a rule has no key 'dney'"),
        (DENIES, "- {who: cn=bob, may: stop, job: a/cy}\n", "expected allowed, but stop refused"),
        (DENIES, "- {who: bob", "policy.cases.yaml:"),
        ("", CASES, "expected allowed, but stop refused"),
        (None, CASES, "cannot be read: No such file or directory"),
    ],
    ids=["not YAML", "misspelt", "fails a case", "bad cases", "emptied", "removed"],
)
def test_a_policy_that_is_no_good_changes_nothing(
    file: Path,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
    cases: str,
    error: str,
) -> None:
    policy = PolicyInForce(file)
    before = policy.version
    cases_file(file).write_text(cases)
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    reload = policy.reload()
    assert not reload.changed
    assert reload.version == policy.version == before
    assert reload.error is not None
    assert error in reload.error
    assert "the policy stays as it was" in caplog.text
    assert policy.decide(BOB, "stop", JOB).allowed
    # And goes on to the next one that is.
    cases_file(file).unlink()
    file.write_text(DENIES)
    assert policy.reload().changed
    assert not policy.decide(BOB, "stop", JOB).allowed


def test_decisions_go_on_while_policies_change(file: Path) -> None:
    policy = PolicyInForce(file)
    wrong: list[str] = []
    end = threading.Event()

    def ask() -> None:
        while not end.is_set():
            # Alice may under both policies; bob under one.
            if not policy.decide(ALICE, "stop", JOB).allowed:
                wrong.append("alice refused")
            policy.decide(BOB, "stop", JOB)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(40):
            file.write_text(DENIES if number % 2 else ALLOWS)
            policy.reload()
            assert policy.decide(BOB, "stop", JOB).allowed is (number % 2 == 0)
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert wrong == []
