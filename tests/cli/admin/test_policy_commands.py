"""`jobworker policy`, as an administrator runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

JOBWORKER = Path(sys.executable).with_name("jobworker")
POLICIES = Path(__file__).parents[3] / "policies"
DEADLINE_SECONDS = 60


def run(directory: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `jobworker policy` in a directory."""
    finished = subprocess.run(
        [JOBWORKER, "policy", *words],
        cwd=directory,
        env={},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert "Traceback" not in finished.stderr
    return finished


SAME = "no decision changes for anybody of one tenant or none\n"


def printed(directory: Path, code: int, *words: str) -> str:
    """What a command prints that ends with `code`, and says nothing on stderr."""
    finished = run(directory, *words)
    assert (finished.returncode, finished.stderr) == (code, "")
    return finished.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the example policies and their cases."""
    for name in ("policy.yaml", "policy.csv", "policy.cases.yaml"):
        (tmp_path / name).write_text((POLICIES / name).read_text())
    return tmp_path


def edit(home: Path, old: str, new: str, name: str = "policy.yaml") -> None:
    text = (home / name).read_text()
    assert old in text
    (home / name).write_text(text.replace(old, new))


def test_check_says_what_was_read(home: Path) -> None:
    first, second = printed(home, 0, "check", "policy.yaml", "policy.csv").splitlines()
    assert first.startswith("policy.yaml: 6 rules, 5 grants, version ")
    assert second.startswith("policy.csv: 16 rules, 5 grants, version ")


def test_check_counts_rules_as_they_stand_in_the_file(home: Path) -> None:
    """Three were four, as one was for two actions."""
    (home / "three.yaml").write_text(
        'rules:\n  - {allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}\n'
        '  - {allow: [read, stop], to: ["ou:team-a", "ou:team-b"], jobs: "team-a/*"}\n'
        '  - {deny: start, to: "cn:eve", jobs: "*/*"}\n'
    )
    assert printed(home, 0, "check", "three.yaml").startswith("three.yaml: 3 rules, 0 grants")


def test_check_tells_every_file_that_is_no_good(home: Path) -> None:
    edit(home, "role:auditor", "role:auditer")
    edit(home, "team-b/*.py", "team-b/*")
    edit(home, "cn:dana", "cn:eve", "policy.csv")
    finished = run(home, "check", "policy.yaml", "policy.csv")
    assert finished.returncode == 1
    assert finished.stdout == ""
    first, second = finished.stderr.splitlines()
    assert "policy.yaml:28:9: role:auditer is held by nobody; did you mean role:auditor?" in first
    assert "policy.cases.yaml:21:9: expected allowed, but stop refused to cn=dana" in second
    found = json.loads(run(home, "check", "policy.yaml", "-o", "json").stdout)
    assert "did you mean role:auditor?" in found["error"]


def test_check_tells_what_is_doubtful(home: Path) -> None:
    (home / "doubtful.csv").write_text(
        "p, cn:a, start, */{cn}, allow, ls\n"
        "p, cn:a, start, */{cn}, deny, /bin/su\n"
        "p, cn:a, stop, */{cn}, allow\n"
        "p, cn:a, stop, */{cn}, allow\n"
        "g, cn:a, role:idle\n"
    )
    found = json.loads(printed(home, 0, "check", "doubtful.csv", "-o", "json"))
    assert [doubt.split(": ")[0] for doubt in found["doubts"]] == [
        f"doubtful.csv:{line}" for line in (1, 2, 4, 5)
    ]
    assert "PATH" in found["doubts"][0]
    assert "copy" in found["doubts"][1]
    assert "line 3" in found["doubts"][2]
    assert "no rule is for" in found["doubts"][3]


@pytest.mark.parametrize(("name", "form"), [("policy.yaml", "csv"), ("policy.csv", "yaml")])
def test_a_converted_policy_decides_the_same(home: Path, name: str, form: str) -> None:
    (home / f"new.{form}").write_text(printed(home, 0, "convert", name))
    assert printed(home, 0, "diff", name, f"new.{form}") == SAME
    same = printed(home, 0, "convert", name, "--to", name.rsplit(".", 1)[1])
    (home / f"same{Path(name).suffix}").write_text(same)
    assert printed(home, 0, "diff", name, f"same{Path(name).suffix}") == SAME


def test_test_counts_the_cases_that_hold(home: Path) -> None:
    assert printed(home, 0, "test", "policy.csv") == "77 of 77 cases hold\n"
    edit(home, "cn:ann", "cn:bob")
    *failed, counted = printed(home, 1, "test", "policy.yaml").splitlines()
    assert counted == "73 of 77 cases hold"
    assert failed[0].startswith("policy.cases.yaml:32: expected allowed, but status refused")
    told = json.loads(printed(home, 1, "test", "policy.yaml", "-o", "json"))
    assert told == {"cases": 77, "failures": failed}


def test_test_without_cases_is_bad_input(home: Path) -> None:
    (home / "policy.cases.yaml").unlink()
    finished = run(home, "test", "policy.yaml")
    assert finished.returncode == 2
    assert finished.stderr == (
        "jobworker: policy.cases.yaml: cannot be read: No such file or directory\n"
    )


def test_explain_names_the_rule_that_decides(home: Path) -> None:
    told = printed(
        home, 0, "explain", "policy.yaml", "--as", "cn=dana ou=team-a", "stop", "team-a/a"
    )
    assert told.splitlines() == [
        "stop allowed to cn=dana ou=team-a for team-a/a: allow rule at policy.yaml:25",
        "for the rules they are: cn:*, cn:dana, ou:*, ou:team-a, role:lead, role:member",
        "decides: policy.yaml:25: allow stop to role:lead on */*",
    ]


def test_explain_says_why_nothing_matched(home: Path) -> None:
    told = printed(
        home, 1, "explain", "policy.yaml", "--as", "cn=cy ou=team-b", "start", "team-b/cy",
        "--", "/usr/bin/python3", "-c", "1",
    )  # fmt: skip
    assert told.splitlines() == [
        "start refused to cn=cy ou=team-b for team-b/cy: "
        "no rule allows it to run '/usr/bin/python3'",
        "for the rules they are: cn:*, cn:cy, ou:*, ou:team-b, role:member",
        "no rule matches, the nearest are",
        "  policy.yaml:37: allow start of /usr/bin/python3 with /srv/team-b/*.py ** "
        "to ou:team-b on team-b/{cn}",
        "    but its arguments are /srv/team-b/*.py **",
    ]


@pytest.mark.parametrize(
    ("tenants", "meant"),
    [
        (" ou=team-a", "here team-a/dana"),
        (" ou=team-a,team-b", "here team-a/dana or team-b/dana"),
        ("", "here none, as they have no tenant"),
    ],
)
def test_explain_says_what_stands_for_oneself(home: Path, tenants: str, meant: str) -> None:
    """`on {ou}/{cn}, but it is about the jobs {ou}/{cn}` told nobody why."""
    (home / "own.yaml").write_text('rules: [{allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}]\n')
    told = printed(home, 1, "explain", "own.yaml", "--as", f"cn=dana{tenants}", "stop", "team-a/al")
    assert told.splitlines()[-1] == f"    but it is about the jobs {{ou}}/{{cn}}, {meant}"


def test_explain_tells_json(home: Path) -> None:
    words = ("explain", "policy.yaml", "--as", "cn=mallory ou=team-a", "list", "team-a/mallory")
    told = json.loads(printed(home, 1, *words, "-o", "json"))
    assert told["allowed"] is False
    assert told["rule"] == "policy.yaml:44: deny * to cn:mallory on */*"
    assert "policy.yaml:22: allow read to role:member on {ou}/{cn}" in told["matching"]
    assert "ou:team-a" in told["subjects"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--as", "dana", "stop", "a/b"], "'dana' is nobody; write cn=NAME"),
        (["--as", "cn=dana", "stop", "b"], "'b' is no job; write TENANT/OWNER"),
        (["--as", "cn=dana", "stpo", "a/b"], "'stpo'"),
        (["stop", "a/b"], "--as"),
    ],
)
def test_explain_wants_to_know_whom_and_what(home: Path, words: list[str], message: str) -> None:
    finished = run(home, "explain", "policy.yaml", *words)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert message in finished.stderr


def test_diff_tells_what_changes_and_for_whom(home: Path) -> None:
    (home / "new.yaml").write_text((home / "policy.yaml").read_text())
    edit(home, "auditor: cn:ann", "auditor: cn:eve", "new.yaml")
    lines = printed(home, 1, "diff", "policy.yaml", "new.yaml").splitlines()
    assert (
        "cn=eve: audit, list, output, status on another-tenant/somebody-else is now allowed "
        "(new.yaml:28)" in lines
    )
    assert (
        "cn=ann: audit, list, output, status on another-tenant/somebody-else is now refused "
        "(policy.yaml:28 did allow it)" in lines
    )
    assert all(line.startswith(("cn=eve", "cn=ann")) for line in lines)
    changes = printed(home, 1, "diff", "policy.yaml", "new.yaml", "-o", "json")
    told = [json.loads(line) for line in changes.splitlines()]
    assert {(one["identity"].split()[0], one["allowed"]) for one in told} == {
        ("cn=eve", True),
        ("cn=ann", False),
    }


def test_diff_asks_about_those_with_certificates(home: Path) -> None:
    for words in (["init"], ["issue", "--cn", "ann"], ["issue", "--server", "localhost"]):
        subprocess.run([JOBWORKER, "ca", *words], cwd=home, check=True, capture_output=True)
    (home / "new.yaml").write_text((home / "policy.yaml").read_text())
    edit(home, "auditor: cn:ann", "auditor: cn:eve", "new.yaml")
    lines = printed(home, 1, "diff", "policy.yaml", "new.yaml", "--ca", "ca").splitlines()
    assert lines
    assert all(line.startswith("cn=ann: ") for line in lines)


def test_diff_says_whom_it_did_not_ask_about(home: Path) -> None:
    """Somebody of two tenants may be treated otherwise where nobody of one is."""
    both = 'rules:\n  - {allow: stop, to: ou:a, jobs: "b/*"}\n'
    (home / "old.yaml").write_text(both)
    (home / "new.yaml").write_text(both + '  - {deny: stop, to: ou:b, jobs: "b/*"}\n')
    assert printed(home, 0, "diff", "old.yaml", "new.yaml") == SAME
    for words in (["init"], ["issue", "--cn", "ann", "--ou", "a", "--ou", "b"]):
        subprocess.run([JOBWORKER, "ca", *words], cwd=home, check=True, capture_output=True)
    told = printed(home, 1, "diff", "old.yaml", "new.yaml", "--ca", "ca")
    assert "cn=ann ou=a,b: stop on b/ann is now refused (new.yaml:3)\n" in told


def test_diff_says_that_it_did_not_try_all(home: Path) -> None:
    """Which of many words a name holds can combine in more ways than can be tried."""
    words = [f"*{a}{b}{a}*" for a in "abcdef" for b in "ghijkl"]
    rules = [f'  - {{allow: stop, to: cn:ann, jobs: "*/{word}"}}\n' for word in words]
    (home / "old.yaml").write_text("".join(["rules:\n", *rules]))
    (home / "new.yaml").write_text("".join(["rules:\n", *rules, rules[0].replace("stop", "read")]))
    finished = run(home, "diff", "old.yaml", "new.yaml")
    assert finished.returncode == 1
    assert "list, output, status on" in finished.stdout
    assert "there may be changes that are not listed" in finished.stderr


def test_a_policy_that_is_none_is_bad_input(home: Path) -> None:
    (home / "bad.yaml").write_text("rules: x\n")
    for words in (
        ["convert", "bad.yaml"],
        ["test", "bad.yaml", "--cases", "policy.cases.yaml"],
        ["explain", "bad.yaml", "--as", "cn=a", "stop", "a/b"],
        ["diff", "policy.yaml", "bad.yaml"],
    ):
        finished = run(home, *words)
        assert finished.returncode == 2
        assert finished.stdout == ""
        assert finished.stderr == (
            "jobworker: bad.yaml:1:8: rules must be a list; begin each with `- `\n"
        )


def test_a_terminal_is_shown_no_control_characters(home: Path) -> None:
    words = ("--as", "cn=a", "start", "/a", "--", "\x1b[2J", "\u202e")
    finished = run(home, "explain", "policy.yaml", *words)
    assert finished.returncode == 1
    assert "\x1b" not in finished.stdout
