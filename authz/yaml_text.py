"""YAML that people write: read as nodes that know where they stand; and what was meant by it."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

import yaml

# libyaml is ten times faster, and not in every build of PyYAML.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# `jobs: {ou}/{cn}` begins a mapping, and `allow: *` an alias, until it is quoted.
QUOTE = 'quote what begins with {, [ or *, such as "{ou}/{cn}"'


class Place(NamedTuple):
    """A position in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Return `file:line`."""
        return f"{self.file}:{self.line}"


class NotYaml(Exception):
    """A text is not one YAML document. `place` is None when that is nowhere in particular."""

    def __init__(self, problem: str, place: Place | None = None, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place
        self.hint = hint


def compose(text: str, file: str) -> yaml.Node | None:
    """Return the document's root; None if it is empty. Raises NotYaml."""
    try:
        return yaml.compose(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else None
        line = text.splitlines()[mark.line] if mark and mark.line < text.count("\n") else ""
        hint = QUOTE if any(char in line for char in "{[*") else ""
        raise NotYaml(str(error.problem), place, hint) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise NotYaml(" ".join(str(error).split())) from error


def place_of(node: yaml.Node, file: str) -> Place:
    """Return where a node begins."""
    return Place(file, node.start_mark.line + 1, node.start_mark.column + 1)


def near(text: str, known: Iterable[str]) -> str:
    """Return `did you mean ...?` for what `text` may be a slip of, else what is known."""
    names = sorted(known)
    found = difflib.get_close_matches(text, names, n=1)
    if found:
        return f"did you mean {found[0]}?"
    return f"known are {', '.join(names)}" if len(names) <= 12 else ""
