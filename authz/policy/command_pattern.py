"""Which command lines a rule for `start` is about.

An allow is read narrowly and a deny widely. A command is either a plain
absolute path, a bare name (looked up on the job's PATH), or, like `./x` and
`/usr/bin/../x`, could be anything: no allow that names a command covers the
last kind, and every deny that names one does. Arguments that are paths go by
the same rule.
"""

import posixpath
import shlex
from collections.abc import Sequence
from functools import lru_cache

from jobworker.authz.policy.globs import ANY_RUN, SequenceTest, TextTest, sequence_glob, text_glob
from jobworker.authz.policy.rules import ANY_ARGUMENTS, ANY_COMMAND

_CACHED = 65_536


def allows_command(pattern: str, command: str) -> bool:
    """Whether an allow with this command pattern covers the command.

    `/usr/bin/*` matches within a folder, `/opt/**` also below; a pattern
    without a slash matches bare names alone; `*` and `**` match everything.
    """
    if pattern in ("*", ANY_COMMAND):
        return True
    if _is_bare(command):
        return "/" not in pattern and _name(pattern)(command)
    return "/" in pattern and _is_plain_path(command) and _path(pattern)(command.split("/"))


def denies_command(pattern: str, command: str) -> bool:
    """Whether a deny with this command pattern covers the command.

    Beyond what an allow would cover, `/usr/bin/sudo` covers `sudo`, and `sudo`
    covers `/usr/bin/sudo`.
    """
    if pattern in ("*", ANY_COMMAND):
        return True
    last = posixpath.basename(pattern)
    if _is_bare(command):
        return last == ANY_RUN or _name(last)(command)
    if not _is_plain_path(command):
        return True
    if "/" in pattern:
        return _path(pattern)(command.split("/"))
    return _name(pattern)(posixpath.basename(command))


def allows_arguments(pattern: str, arguments: Sequence[str]) -> bool:
    """Whether an allow with this pattern covers the arguments.

    The pattern is quoted like a shell's words; each word is a glob for one
    argument, `**` is any number of them: `-m pytest **` is two arguments and
    any more. A word that begins with a slash matches paths, as for commands;
    in any other word a `*` may also stand for slashes.
    """
    return pattern == ANY_ARGUMENTS or _allowed_arguments(pattern)(arguments)


def denies_arguments(pattern: str, arguments: Sequence[str]) -> bool:
    """Whether a deny with this pattern covers the arguments.

    Beyond what an allow would cover, a path in the pattern covers every
    argument with a slash that is not a plain absolute path.
    """
    return pattern == ANY_ARGUMENTS or _denied_arguments(pattern)(arguments)


def is_literal_path(pattern: str) -> bool:
    """Whether an allow with this command pattern covers that one absolute path alone."""
    return "/" in pattern and "*" not in pattern and "?" not in pattern


def _is_bare(command: str) -> bool:
    return "/" not in command and command not in ("", ".", "..") and "\0" not in command


def _is_plain_path(command: str) -> bool:
    return (
        command.startswith("/")
        # POSIX leaves the meaning of exactly two leading slashes open, so normpath keeps them.
        and not command.startswith("//")
        and posixpath.normpath(command) == command
        and "\0" not in command
    )


_name = lru_cache(maxsize=_CACHED)(text_glob)


@lru_cache(maxsize=_CACHED)
def _path(pattern: str) -> SequenceTest:
    return sequence_glob(pattern.split("/"))


@lru_cache(maxsize=_CACHED)
def _allowed_arguments(pattern: str) -> SequenceTest:
    return sequence_glob(shlex.split(pattern), _allowed_argument)


@lru_cache(maxsize=_CACHED)
def _denied_arguments(pattern: str) -> SequenceTest:
    return sequence_glob(shlex.split(pattern), _denied_argument)


def _allowed_argument(word: str) -> TextTest:
    if not word.startswith("/"):
        return text_glob(word)
    path = _path(word)
    return lambda argument: _is_plain_path(argument) and path(argument.split("/"))


def _denied_argument(word: str) -> TextTest:
    if not word.startswith("/"):
        return text_glob(word)
    path = _path(word)
    return lambda argument: (
        "/" in argument and (not _is_plain_path(argument) or path(argument.split("/")))
    )
