"""What the patterns of a policy match: texts, sequences, jobs and command lines."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.authz.policy.command_pattern import (
    allows_arguments,
    allows_command,
    denies_arguments,
    denies_command,
)
from jobworker.authz.policy.globs import sequence_glob, text_glob
from jobworker.authz.policy.job_pattern import is_about
from tests.support.policies import identity


def text_matches(pattern: str, text: str) -> bool:
    """What a text glob means, by its definition."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(text_matches(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and text_matches(pattern[1:], text[1:])


def sequence_matches(patterns: Sequence[str], texts: Sequence[str]) -> bool:
    """What a sequence glob means, by its definition."""
    if not patterns:
        return not texts
    if patterns[0] == "**":
        return any(sequence_matches(patterns[1:], texts[at:]) for at in range(len(texts) + 1))
    return (
        bool(texts)
        and text_matches(patterns[0], texts[0])
        and sequence_matches(patterns[1:], texts[1:])
    )


@given(st.text("ab*?.\n", max_size=7), st.text("ab*.\n", max_size=9))
def test_text_globs_mean_what_they_say(pattern: str, text: str) -> None:
    assert text_glob(pattern)(text) == text_matches(pattern, text)


@given(
    st.lists(st.sampled_from(["**", "*", "a", "b", "a*", "?", ""]), max_size=6),
    st.lists(st.sampled_from(["a", "b", "ab", "", "*"]), max_size=7),
)
def test_sequence_globs_mean_what_they_say(patterns: list[str], texts: list[str]) -> None:
    assert sequence_glob(patterns)(texts) == sequence_matches(patterns, texts)


@given(st.text("[](){}+|^$\\.-!&#%a", min_size=1, max_size=6), st.text("ab[]\\.^$", max_size=6))
def test_nothing_but_stars_and_question_marks_is_special(pattern: str, text: str) -> None:
    assert text_glob(pattern)(text) == (pattern == text)
    assert text_glob(f"{pattern}*")(pattern + text)
    assert text_glob(f"*{pattern}*")(text) == (pattern in text)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*b", "*" * 50 + "b", "*a?a?a*b*", "?*?*?*?*b"])
def test_no_text_makes_a_glob_slow(pattern: str) -> None:
    test = text_glob(pattern)
    begin = time.process_time()
    assert not test("a" * 200_000)
    # Matching by trying every split takes days.
    assert time.process_time() - begin < 5


def test_no_arguments_make_a_sequence_slow() -> None:
    test = sequence_glob(["**", "a", "**", "a", "**", "a", "**", "a", "**", "b"])
    begin = time.process_time()
    assert not test(["a"] * 100_000)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("pattern", "job", "about"),
    [
        ("{ou}/{cn}", "a/alice", True),
        ("{ou}/{cn}", "b/alice", True),
        ("{ou}/{cn}", "c/alice", False),
        ("{ou}/{cn}", "/alice", False),
        ("{ou}/{cn}", "a/bob", False),
        ("{ou}/*", "a/bob", True),
        ("*/{cn}", "c/alice", True),
        ("*/{cn}", "/alice", True),
        ("*/*", "/bob", True),
        ("a/*", "a/bob", True),
        ("a/*", "ab/bob", False),
        ("a*/*", "ab/bob", True),
        ("?/*", "ab/bob", False),
        ("/bob", "/bob", True),
        ("/bob", "a/bob", False),
        ("a/b*", "a/bob", True),
        ("a/b*", "a/alice", False),
    ],
)
def test_job_patterns_for_alice_of_a_and_b(pattern: str, job: str, about: bool) -> None:
    tenant, owner = job.split("/")
    assert is_about(pattern, tenant, owner, identity("alice", "a", "b")) is about


def test_a_job_without_tenant_is_no_members() -> None:
    assert not is_about("{ou}/*", "", "bob", identity("alice"))
    assert not is_about("{ou}/*", "", "bob", identity("alice", "a"))


# Pattern, command, whether an allow covers it, whether a deny does.
COMMANDS = [
    ("**", "anything at all", True, True),
    ("*", "/bin/ls", True, True),
    ("/bin/ls", "/bin/ls", True, True),
    ("/bin/ls", "/bin/lsx", False, False),
    ("/bin/ls", "/usr/bin/ls", False, False),
    ("/bin/*", "/bin/ls", True, True),
    ("/bin/*", "/bin/x/ls", False, False),
    ("/bin/**", "/bin/x/ls", True, True),
    ("/bin/**", "/binx/ls", False, False),
    ("/**/bin/*", "/usr/local/bin/x", True, True),
    ("/**/bin/*", "/usr/local/lib/x", False, False),
    ("/bin/l?", "/bin/ls", True, True),
    ("ls", "ls", True, True),
    ("l*", "ls", True, True),
    # A bare name is found on a PATH that its caller chooses.
    ("/bin/ls", "ls", False, True),
    ("/bin/**", "ls", False, True),
    ("/bin/ls", "rm", False, False),
    ("ls", "/bin/ls", False, True),
    ("ls", "/bin/rm", False, False),
    # What only looks like one path may lead to another.
    ("/bin/*", "/bin/../tmp/x", False, True),
    ("/bin/**", "/bin/../tmp/x", False, True),
    ("/bin/**", "/bin/./ls", False, True),
    ("/bin/**", "/bin//ls", False, True),
    ("/bin/**", "//bin/ls", False, True),
    ("/bin/**", "/bin/", False, True),
    ("/bin/**", "/bin/ls\0x", False, True),
    ("/bin/**", "bin/ls", False, True),
    ("/bin/**", "./ls", False, True),
    ("/bin/**", "../bin/ls", False, True),
    ("/bin/**", "", False, True),
    ("/bin/**", ".", False, True),
    ("/bin/**", "..", False, True),
    ("..", "..", False, True),
    # Case, look-alikes and white space are not evened out.
    ("/bin/ls", "/BIN/LS", False, False),
    ("/bin/ls", "/bin/ls ", False, False),
    ("/bin/ls", "/bin/ls\n", False, False),
    ("/bin/ls", "/bin/l\u0455", False, False),
]


@pytest.mark.parametrize(("pattern", "command", "allowed", "denied"), COMMANDS)
def test_command_patterns(pattern: str, command: str, allowed: bool, denied: bool) -> None:
    assert allows_command(pattern, command) is allowed
    assert denies_command(pattern, command) is denied


@given(
    st.sampled_from(["/bin/ls", "/bin/*", "/bin/**", "/**/x", "ls", "l?", "*", "**"]),
    st.text("/.lsbinx*\0", max_size=10),
)
def test_a_deny_covers_all_that_an_allow_does(pattern: str, command: str) -> None:
    if allows_command(pattern, command):
        assert denies_command(pattern, command)


# Pattern, arguments, whether an allow covers them, whether a deny does.
ARGUMENTS = [
    ("**", (), True, True),
    ("**", ("x",) * 1000, True, True),
    ("", (), True, True),
    ("", ("x",), False, False),
    ("''", ("",), True, True),
    ("-m pytest **", ("-m", "pytest"), True, True),
    ("-m pytest **", ("-m", "pytest", "-k", "x y"), True, True),
    ("-m pytest **", ("-m", "pip"), False, False),
    ("-m pytest **", ("-mpytest",), False, False),
    ("-m pytest", ("-m", "pytest", "-x"), False, False),
    ("** --force **", ("a", "--force", "b"), True, True),
    ("** --force **", ("a", "--forced"), False, False),
    ("'a b'", ("a b",), True, True),
    ("'a b'", ("a", "b"), False, False),
    ("*", ("a\nb/c",), True, True),
    ("*", (), False, False),
    ("--user=?*", ("--user=",), False, False),
    ("/srv/*.py", ("/srv/a.py",), True, True),
    ("/srv/*.py", ("/srv/a/b.py",), False, False),
    ("/srv/**", ("/srv/a/b.py",), True, True),
    ("/srv/**", ("/srvx",), False, False),
    ("/srv/**", ("a.py",), False, False),
    # What only looks like one path may lead to another.
    ("/srv/*.py", ("/srv/../etc/x.py",), False, True),
    ("/srv/**", ("/srv/../etc/x.py",), False, True),
    ("/srv/**", ("/srv//x.py",), False, True),
    ("/srv/**", ("srv/x.py",), False, True),
    ("/", ("/",), True, True),
]


@pytest.mark.parametrize(("pattern", "arguments", "allowed", "denied"), ARGUMENTS)
def test_argument_patterns(
    pattern: str, arguments: tuple[str, ...], allowed: bool, denied: bool
) -> None:
    assert allows_arguments(pattern, arguments) is allowed
    assert denies_arguments(pattern, arguments) is denied
