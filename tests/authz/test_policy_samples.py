"""Samples: whatever rules can tell apart, there is one of each kind."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from jobworker.authz.names import objection_to_name
from jobworker.authz.policy.globs import text_glob
from jobworker.authz.policy.judge import JobFacts, runs
from jobworker.authz.policy.rules import Rule
from jobworker.authz.workbench.samples import lines, names
from tests.support.policies import ARGUMENT_PATTERNS, COMMAND_PATTERNS, HERE

# All short texts of characters that patterns name, and of one that none does.
NAMES = [
    name
    for length in range(5)
    for name in map("".join, product("abz", repeat=length))
    if not name or objection_to_name(name) is None
]
COMMANDS = ["".join(text) for length in range(6) for text in product("/al.", repeat=length)]
COMMAND_GLOBS = ("/a", "/a/*", "/**/a", "/?/**", "a", "l?", "*l", "/l*/a", "/")
WORDS = ("", "a", "-a", "-al", "/", "/a", "/a/l", "/./a", "a/l", "l")
ARGUMENTS = [line for length in range(4) for line in product(WORDS, repeat=length)]
ARGUMENT_GLOBS = ("", "a", "-* **", "** a", "/a/* **", "** /* **", "*l ?", "** -?", "'' **", "*/l")


@given(st.lists(st.text("ab*?", max_size=4), max_size=6), st.sets(st.sampled_from(["a", "bab"])))
def test_names_of_every_kind_are_found(globs: list[str], named: set[str]) -> None:
    found = names("stranger", frozenset(named), frozenset(globs))
    assert found.complete
    assert named <= set(found.found)
    assert all(not name or objection_to_name(name) is None for name in found.found)
    tests = list(map(text_glob, {*named, *globs}))
    kinds = {(not name, *(test(name) for test in tests)) for name in found.found}
    assert {(not name, *(test(name) for test in tests)) for name in NAMES} <= kinds
    # One of each kind is enough.
    assert len(kinds) == len(found.found)


def rules(commands: tuple[str, ...], arguments: tuple[str, ...]) -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        st.just("cn:*"),
        st.just("start"),
        st.just("*/*"),
        st.sampled_from(("allow", "deny")),
        st.sampled_from(commands),
        st.sampled_from(arguments),
        st.just(HERE),
    )


def kind(of: list[Rule], command: str, arguments: tuple[str, ...]) -> tuple[bool, ...]:
    job = JobFacts("", "", command, arguments)
    return tuple(runs(rule.command, rule.arguments, rule.effect, job) for rule in of)


@settings(deadline=None)
@given(st.lists(rules(COMMAND_GLOBS, ("**",)), max_size=6))
def test_commands_of_every_kind_are_found(of: list[Rule]) -> None:
    found = lines(tuple(of))
    assert found.complete
    kinds = {kind(of, *line) for line in found.found}
    assert {kind(of, command, ()) for command in COMMANDS} <= kinds
    assert len(kinds) == len(found.found)


@settings(deadline=None)
@given(st.lists(rules(("**",), ARGUMENT_GLOBS), max_size=6))
def test_arguments_of_every_kind_are_found(of: list[Rule]) -> None:
    found = lines(tuple(of))
    assert found.complete
    kinds = {kind(of, *line) for line in found.found}
    assert {kind(of, "a", arguments) for arguments in ARGUMENTS} <= kinds


@settings(deadline=None)
@given(st.lists(rules(COMMAND_PATTERNS, ARGUMENT_PATTERNS), max_size=8))
def test_both_together_are_found(of: list[Rule]) -> None:
    found = lines(tuple(of))
    assert found.complete
    kinds = {kind(of, *line) for line in found.found}
    asked = product(("/bin/ls", "/bin/x", "ls", "/opt/c", "./ls"), ((), ("-l",), ("-m", "x y")))
    assert {kind(of, *line) for line in asked} <= kinds


def test_what_is_too_much_to_try_is_told() -> None:
    globs = frozenset(f"*{a}{b}{a}*" for a in "abcdef" for b in "ghijkl")
    found = names("stranger", frozenset({"ann"}), globs)
    assert not found.complete
    # Still one for each by itself.
    for glob in ("ann", *globs):
        assert any(map(text_glob(glob), found.found))
