"""What a policy file may say, and how it is told what is wrong with it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jobworker.authz.policy.csv_form import read_csv, write_csv
from jobworker.authz.policy.policy import Policy, PolicyError, load_policy
from jobworker.authz.policy.rules import Grant, Rule, Statements
from jobworker.authz.policy.yaml_form import read_yaml
from jobworker.authz.policy.yaml_writer import write_yaml
from tests.support.policies import HERE, statements

POLICIES = Path(__file__).parents[2] / "policies"

QUOTE = 'quote what begins with {, [ or *, such as "{ou}/{cn}"'
# What is wrong, the file, and the whole message.
YAML_ERRORS = {
    "unknown section": (
        "rules: []\nrole: {}\n",
        "p:2:1: the policy has no key 'role'; did you mean roles?",
    ),
    "misspelt action": (
        "rules:\n  - {allow: [stop, strat], to: cn:a, jobs: '*/*'}\n",
        "p:2:20: 'strat' is no action; did you mean start?",
    ),
    "misspelt key": (
        "rules:\n  - allow: stop\n    to: cn:a\n    job: '*/*'\n",
        "p:4:5: a rule has no key 'job'; did you mean jobs?",
    ),
    "no effect": (
        "rules:\n  - to: cn:a\n    jobs: '*/*'\n",
        "p:2:5: a rule has either allow or deny; write `allow: start` or `deny: start`",
    ),
    "both effects": (
        "rules:\n  - {allow: stop, deny: start, to: cn:a, jobs: '*/*'}\n",
        "p:2:5: a rule has either allow or deny, not both; write `allow: start` or `deny: start`",
    ),
    "no subject": (
        "rules:\n  - {allow: stop, jobs: '*/*'}\n",
        "p:2:5: the rule has no `to`; say whom it is for, such as `to: ou:team-a`",
    ),
    "no jobs": (
        "rules:\n  - {allow: stop, to: cn:a}\n",
        'p:2:5: the rule has no `jobs`; say which jobs it is about, such as `jobs: "{ou}/{cn}"`',
    ),
    "empty list": (
        "rules:\n  - {allow: [], to: cn:a, jobs: '*/*'}\n",
        "p:2:13: allow is empty; name one at least",
    ),
    "a key twice": (
        "rules:\n  - {allow: stop, allow: start, to: cn:a, jobs: '*/*'}\n",
        "p:2:19: allow is there twice",
    ),
    "unquoted placeholder": (
        "rules:\n  - allow: stop\n    to: cn:a\n    jobs: {ou}/{cn}\n",
        "p:4:15: not YAML: did not find expected key; " + QUOTE,
    ),
    "placeholder as a mapping": (
        "rules:\n  - allow: stop\n    to: cn:a\n    jobs: {ou}\n",
        f"p:4:11: jobs must be a text; {QUOTE}",
    ),
    "unquoted star": (
        "rules:\n  - allow: *\n    to: cn:a\n",
        "p:2:13: not YAML: did not find expected alphabetic or numeric character; " + QUOTE,
    ),
    "tab": ("rules:\n\t- a\n", "p:2:1: not YAML: found character that cannot start any token"),
    "rules of another shape": (
        "rules:\n  allow: stop\n",
        "p:2:3: rules must be a list; begin each with `- `",
    ),
    "two documents": (
        "rules: []\n---\nrules: []\n",
        "p:2:1: not YAML: but found another document",
    ),
    "a text alone": (
        "hello\n",
        "p:1:1: the policy must be a mapping; its keys are roles, tenants, rules",
    ),
    "bad role member": (
        "roles:\n  lead: dana\n",
        "p:2:9: 'dana' is no subject; write cn:NAME, ou:TENANT or role:ROLE",
    ),
    "bad tenant": (
        "tenants:\n  team a: {lead: cn:dana}\n",
        "p:2:3: the tenant 'team a' may only hold A-Z a-z 0-9 . _ @ - "
        "and must begin with a letter or digit",
    ),
    "unknown role": (
        "roles:\n  lead: cn:dana\nrules:\n  - {allow: stop, to: role:laed, jobs: '*/*'}\n",
        "p:4:23: role:laed is held by nobody; did you mean role:lead?",
    ),
    "circle": (
        "roles:\n  one: role:two\n  two: role:three\n  three: role:one\n",
        "p:2:8: roles hold one another: role:two -> role:one -> role:three -> role:two",
    ),
    "command for stop": (
        "rules:\n  - {allow: [start, stop], to: cn:a, jobs: '*/*', command: /bin/ls}\n",
        "p:2:60: a command and arguments restrict `start`, not `stop`; "
        "make a rule of its own for start",
    ),
}
CSV_ERRORS = {
    "unknown kind": ("q, cn:a\n", "p:1:1: a line begins with p or g, not 'q'; known are g, p"),
    "too few fields": (
        "# fine\n\np, cn:a, start\n",
        "p:3:1: a rule has 4 to 6 fields after the p, not 2; "
        "write p, SUBJECT, ACTION, JOBS, EFFECT[, COMMAND[, ARGUMENTS]]",
    ),
    "too many fields": (
        "p, cn:a, start, */*, allow, /bin/sh, -c, x\n",
        "p:1:1: a rule has 4 to 6 fields after the p, not 7; "
        "write p, SUBJECT, ACTION, JOBS, EFFECT[, COMMAND[, ARGUMENTS]]",
    ),
    "misspelt effect": (
        "p, cn:a, start, */*, alow\n",
        "p:1:22: 'alow' is no effect; did you mean allow?",
    ),
    "open quote": (
        'p, cn:a, start, */*, allow, "/bin/ls\n',
        'p:1:28: the quotes of this field do not match; a quote within quotes is written ""',
    ),
    "bad kind of subject": (
        "p, uo:a, stop, */*, allow\n",
        "p:1:4: 'uo:a' is no subject; known are cn, ou, role",
    ),
    "glob as subject": (
        "p, ou:team-*, stop, */*, allow\n",
        "p:1:4: 'ou:team-*' is no subject: cn:* and ou:* are the only globs here; "
        "give a role to those who are meant",
    ),
    "no slash": (
        "p, cn:a, stop, *, allow\n",
        "p:1:16: '*' does not name jobs; write TENANT/OWNER, such as {ou}/{cn} or */*",
    ),
    "sides exchanged": (
        "p, cn:a, stop, {cn}/{ou}, allow\n",
        "p:1:16: in '{cn}/{ou}' the tenant comes first, then the owner; did you mean {ou}/{cn}?",
    ),
    "part of a side": (
        "p, cn:a, stop, {ou}*/{cn}, allow\n",
        "p:1:16: '{ou}*' in '{ou}*/{cn}' is no pattern; {ou} stands for a whole side of the slash",
    ),
    "unknown placeholder": (
        "p, cn:a, stop, {tenant}/*, allow\n",
        "p:1:16: '{tenant}' in '{tenant}/*' is no pattern; "
        "{ou} stands for a whole side of the slash",
    ),
    "no owner": (
        "p, cn:a, stop, a/, allow\n",
        "p:1:16: 'a/' names no owner; every owner is *",
    ),
    "impossible name": (
        "p, cn:a, stop, */-x*, allow\n",
        "p:1:16: '-x*' in '*/-x*' matches no name: it may only hold A-Z a-z 0-9 . _ @ - "
        "and must begin with a letter or digit",
    ),
    "relative command": (
        "p, cn:a, start, */*, allow, bin/ls\n",
        "p:1:29: the command 'bin/ls' is neither an absolute path nor a name without slashes; "
        "did you mean /bin/ls?",
    ),
    "command that is no plain path": (
        "p, cn:a, start, */*, allow, /bin/../ls\n",
        "p:1:29: no path matches '/bin/../ls'; leave out //, /./, /../ and a last /",
    ),
    "stars within a name": (
        "p, cn:a, start, */*, allow, /bin/l**\n",
        "p:1:29: ** in '/bin/l**' must stand between slashes, for any number of folders; "
        "within a name, write l*",
    ),
    "empty command": (
        "p, cn:a, start, */*, allow, , x\n",
        "p:1:29: the command is empty; any command is **",
    ),
    "open shell quote": (
        "p, cn:a, start, */*, allow, /bin/ls, it's\n",
        'p:1:38: the arguments "it\'s" are not shell words: No closing quotation',
    ),
    "control character": (
        "p, cn:a, start, */*, allow, /bin/ls, a\tb\n",
        "p:1:38: the arguments 'a\\tb' holds a control character; match it with ?",
    ),
    "no role": ("g, cn:a, lead\n", "p:1:10: 'lead' is no role; write role:lead"),
    "a role of itself": (
        "g, role:a, role:a\n",
        "p:1:4: roles hold one another: role:a -> role:a",
    ),
    "a circle in one tenant": (
        "g, role:a, role:b, x\ng, role:b, role:a\n",
        "p:1:4: roles hold one another: role:a -> role:b -> role:a",
    ),
    "empty role": ("g, cn:a, role:\n", "p:1:10: the role '' is empty"),
    "hostile name": (
        "p, cn:a\\nb, stop, */*, allow\n",
        "p:1:4: the user 'a\\\\nb' may only hold A-Z a-z 0-9 . _ @ - "
        "and must begin with a letter or digit",
    ),
}


@pytest.mark.parametrize(("text", "message"), YAML_ERRORS.values(), ids=YAML_ERRORS)
def test_yaml_errors_say_what_where_and_what_may_be_meant(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_yaml(text, "p")
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "message"), CSV_ERRORS.values(), ids=CSV_ERRORS)
def test_csv_errors_say_what_where_and_what_may_be_meant(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_csv(text, "p")
    assert str(caught.value) == message


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("pg,:*{}/\n\"' -startcnoual", max_size=60))
def test_no_text_breaks_the_readers(text: str) -> None:
    for read in (read_csv, read_yaml):
        try:
            Policy(read(text, "p"))
        except PolicyError as error:
            message = str(error)
        else:
            message = "p: is a policy"
        assert message.startswith("p:")


@settings(max_examples=200, deadline=None)
@given(statements())
def test_a_policy_survives_both_forms(random: Statements) -> None:
    from_csv = read_csv(write_csv(random), "p")
    assert from_csv == random
    from_yaml = read_yaml(write_yaml(random), "p")
    assert from_yaml.rules == random.rules
    assert set(from_yaml.grants) == set(random.grants)
    assert read_csv(write_csv(from_yaml), "p") == from_yaml


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12),
    st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=6), max_size=4),
)
def test_any_printable_pattern_survives_both_forms(name: str, words: list[str]) -> None:
    rule = {"allow": "start", "to": "cn:a", "jobs": "*/*", "command": f"/{name}"}
    try:
        first = read_yaml(yaml.safe_dump({"rules": [{**rule, "arguments": words}]}), "p")
    except PolicyError:
        return
    assert read_csv(write_csv(first), "p") == first
    assert read_yaml(write_yaml(first), "p") == first


def test_the_example_policies_say_the_same() -> None:
    from_csv = load_policy(POLICIES / "policy.csv")
    from_yaml = load_policy(POLICIES / "policy.yaml")
    assert from_csv.statements == from_yaml.statements
    assert from_csv.version != from_yaml.version


def test_one_text_or_a_list_of_them() -> None:
    several = read_yaml(
        "rules:\n  - allow: [stop, start]\n    to: [cn:a, ou:b]\n    jobs: [a/*, b/*]\n",
        "p",
    )
    assert {(rule.subject, rule.action, rule.jobs) for rule in several.rules} == {
        (subject, action, jobs)
        for subject in ("cn:a", "ou:b")
        for action in ("stop", "start")
        for jobs in ("a/*", "b/*")
    }


def test_a_list_of_arguments_is_a_pattern_for_each() -> None:
    text = "rules:\n  - allow: start\n    to: cn:a\n    jobs: '*/*'\n    arguments: {}\n"
    (rule,) = read_yaml(text.format('[-c, "a b", "**"]'), "p").rules
    assert rule.arguments == "-c 'a b' '**'"
    (none,) = read_yaml(text.format("[]"), "p").rules
    assert none.arguments == ""


def test_csv_fills_in_what_is_left_out() -> None:
    short = read_csv("p, cn:a, start, */*, allow\ng, cn:a, role:r\n", "p")
    full = read_csv("p, cn:a, start, */*, allow, **, **\ng, cn:a, role:r, *\n", "p")
    assert short == full
    assert short.rules == (Rule("cn:a", "start", "*/*", "allow", "**", "**", HERE),)
    assert short.grants == (Grant("cn:a", "role:r", "*", HERE),)


def test_csv_may_have_windows_line_ends_quotes_and_commas() -> None:
    (rule,) = read_csv('p,cn:a,start,"*/*",allow,/bin/echo,"a,b ""c d"""\r\n', "p").rules
    assert rule.jobs == "*/*"
    assert rule.arguments == 'a,b "c d"'


def test_a_role_may_be_held_by_nobody() -> None:
    empty = read_yaml(
        "roles: {lead: []}\nrules:\n  - {allow: stop, to: role:lead, jobs: '*/*'}", "p"
    )
    assert empty.grants == (Grant("nobody", "role:lead", "*", HERE),)


@pytest.mark.parametrize("name", ["p.csv", "p.yaml", "p.yml"])
def test_an_empty_file_is_a_policy_that_allows_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("# nothing yet\n")
    assert load_policy(tmp_path / name).statements == Statements((), ())


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"missing\.csv: cannot be read: No such file"):
        load_policy(tmp_path / "missing.csv")
    with pytest.raises(PolicyError, match=r"a policy's name ends in \.csv, \.yaml, \.yml"):
        load_policy(tmp_path / "policy.json")
    (tmp_path / "p.csv").write_bytes(b"p, cn:\xff\n")
    with pytest.raises(PolicyError, match=r"p\.csv: is not UTF-8 text"):
        load_policy(tmp_path / "p.csv")
