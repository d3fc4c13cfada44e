"""Names and command lines that stand for all there are, as far as rules can tell them apart."""

import posixpath
import shlex
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import product
from string import ascii_letters, digits
from typing import NamedTuple

from jobworker.authz.names import objection_to_name
from jobworker.authz.policy.globs import ANY_RUN
from jobworker.authz.policy.judge import JobFacts, runs
from jobworker.authz.policy.rules import ANY_ARGUMENTS, ANY_COMMAND, Rule
from jobworker.authz.workbench.witnesses import (
    Part,
    path_pattern,
    sequence_pattern,
    text_pattern,
    witnesses,
)

# It stands for all commands that no rule names.
STRANGE_COMMAND = "/any/other/command"
# Those that are not in a pattern are all the same to it.
_LETTERS = f"x{ascii_letters}{digits}"
_CACHED = 4096
# A command, and arguments.
Line = tuple[str, tuple[str, ...]]


class Names(NamedTuple):
    """Names; not `complete` if patterns may tell some name from all of these."""

    found: tuple[str, ...]
    complete: bool


class Lines(NamedTuple):
    """Command lines; not `complete` if rules may tell some command line from all of these."""

    found: tuple[Line, ...]
    complete: bool


@lru_cache(maxsize=_CACHED)
def names(stranger: str, named: frozenset[str], globs: frozenset[str]) -> Names:
    """Return "", what is `named`, and a name for each further combination of globs.

    `stranger` is the name that stands for those that nothing matches.
    """
    patterns = sorted(named | globs)
    unused = _unused(patterns)
    found, complete = witnesses(
        map(text_pattern, patterns),
        [unused],
        _sort_of_name,
        _state_of_name,
        [tuple(stranger), *(_plainly(pattern, unused) for pattern in patterns)],
    )
    return Names(tuple("".join(text) for text in found), complete)


@lru_cache(maxsize=_CACHED)
def lines(rules: tuple[Rule, ...]) -> Lines:
    """Return a command line for each combination of the rules that are about one."""
    commands, all_commands = _commands(rules)
    arguments, all_arguments = _arguments(rules)
    # Most of what patterns tell apart is the same to the rules.
    by_command = {_running(rules, command=one): one for one in reversed(commands)}
    by_arguments = {_running(rules, arguments=one): one for one in reversed(arguments)}
    found = {
        ran & run: (command, words)
        for (ran, command), (run, words) in product(by_command.items(), by_arguments.items())
    }
    return Lines(tuple(sorted(found.values())), all_commands and all_arguments)


def _running(
    rules: Sequence[Rule], command: str | None = None, arguments: tuple[str, ...] | None = None
) -> frozenset[int]:
    """The numbers of the rules that are about a command, or about arguments."""
    job = JobFacts("", "", command or "", arguments or ())
    return frozenset(
        number
        for number, rule in enumerate(rules)
        if runs(
            ANY_COMMAND if command is None else rule.command,
            ANY_ARGUMENTS if arguments is None else rule.arguments,
            rule.effect,
            job,
        )
    )


def _commands(rules: Iterable[Rule]) -> tuple[list[str], bool]:
    named = [rule for rule in rules if rule.command not in ("*", ANY_COMMAND)]
    unused = _unused(rule.command for rule in named)
    found, complete = witnesses(
        [pattern for rule in named for pattern in _command_patterns(rule)],
        [unused, "/", "."],
        _sort_of_path,
        _state_of_path,
        [tuple(STRANGE_COMMAND), *(_plainly(rule.command, unused) for rule in named)],
    )
    return ["".join(text) for text in found], complete


def _command_patterns(rule: Rule) -> Iterator[tuple[Part[str], ...]]:
    """What the rule tells apart; see command_pattern."""
    last = posixpath.basename(rule.command)
    if "/" in rule.command:
        yield path_pattern(rule.command)
        if rule.effect == "deny" and last != ANY_RUN:
            yield text_pattern(last, slashes=False)
    else:
        yield text_pattern(last, slashes=False)
        if rule.effect == "deny":
            yield path_pattern(f"/{ANY_RUN}/{last}")


def _arguments(rules: Iterable[Rule]) -> tuple[list[tuple[str, ...]], bool]:
    named = [rule for rule in rules if rule.arguments != ANY_ARGUMENTS]
    split = [(rule.effect, shlex.split(rule.arguments)) for rule in named]
    words, all_words = _words({word for _, pattern in split for word in pattern})
    patterns = (
        sequence_pattern(
            None if word == ANY_RUN else partial(_is_argument, effect, shlex.quote(word))
            for word in pattern
        )
        for effect, pattern in split
    )
    unused = _unused(rule.arguments for rule in named)
    plain = (
        tuple("".join(_plainly(word, unused)) for word in pattern if word != ANY_RUN)
        for _, pattern in split
    )
    found, complete = witnesses(patterns, words, lambda _: "any", lambda _: "any", [(), *plain])
    return found, complete and all_words


def _is_argument(effect: str, pattern: str, word: str) -> bool:
    return runs(ANY_COMMAND, pattern, effect, JobFacts("", "", "", (word,)))


def _words(patterns: set[str]) -> tuple[list[str], bool]:
    patterns = patterns - {ANY_RUN}
    unused = _unused(patterns)
    found, complete = witnesses(
        [
            path_pattern(word) if word.startswith("/") else text_pattern(word)
            for word in sorted(patterns)
        ],
        [unused, "/", "."],
        _sort_of_path,
        _state_of_path,
        [_plainly(word, unused) for word in sorted(patterns)],
    )
    return ["".join(text) for text in found], complete


def _plainly(pattern: str, unused: str) -> tuple[str, ...]:
    """A text that the pattern matches, and few others do."""
    plain = pattern.replace(ANY_RUN, unused).replace("*", unused).replace("?", unused)
    return tuple(plain)


def _unused(texts: Iterable[str]) -> str:
    used = set().union(*texts)
    # There is always one: if no letter is, then all are in patterns anyway.
    return next((letter for letter in _LETTERS if letter not in used), "x")


def _sort_of_name(text: tuple[str, ...]) -> Hashable:
    return bool(text)


def _state_of_name(text: tuple[str, ...]) -> Hashable:
    """What may follow depends on whether there is something, and on a dot before."""
    if not text:
        return ""
    return None if objection_to_name("".join(text)) else text[-1] == "."


def _sort_of_path(text: tuple[str, ...]) -> Hashable:
    """Bare, a plain absolute path, or neither, with a slash or without; see command_pattern."""
    absolute, slash, doubtful, part = _state_of_path(text)
    plain = absolute and not doubtful and (part == "x" or text == ("/",))
    return plain, slash, not slash and part


def _state_of_path(text: tuple[str, ...]) -> tuple[bool, bool, bool, str]:
    """Whether it begins with a slash, has one, holds //, /./ or /../; and the last part."""
    *before, last = "".join(text).split("/")
    return (
        text[:1] == ("/",),
        bool(before),
        any(part in ("", ".", "..") for part in before[1:]),
        last if last in ("", ".", "..") else "x",
    )
