"""Texts that stand for all others: one for each combination of patterns that any text matches.

What matches the same patterns is the same to whatever goes by the patterns
alone, so one text of a kind tells about all of them. The kinds are found by
walking through all patterns at once, character by character. That ends: there
are only so many sets of places within patterns to be at (the subset
construction of finite automata).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from jobworker.authz.policy.globs import ANY_RUN

# Sets of places to visit at most. Policies that people write need some dozens.
MOST = 4000
S = TypeVar("S", bound=Hashable)


class Part(NamedTuple, Generic[S]):
    """A place in a pattern: it takes one symbol, `only` this one or those that `fits` takes.

    It takes any number of them if it `repeats`, and `skips` parts, of which it
    is the first, can be left out.
    """

    only: S | None
    fits: Callable[[S], bool] | None = None
    repeats: bool = False
    skips: int = 0

    def takes(self, symbol: S) -> bool:
        """Whether it takes the symbol."""
        return symbol == self.only if self.fits is None else self.fits(symbol)


class Witnesses(NamedTuple, Generic[S]):
    """Sequences of symbols, each of another kind; not `complete` if there may be more kinds."""

    found: list[tuple[S, ...]]
    complete: bool


def text_pattern(glob: str, *, slashes: bool = True) -> tuple[Part[str], ...]:
    """The pattern of a glob over texts; with `slashes` its wildcards take those, too."""
    wild = _anything if slashes else _no_slash
    kinds: dict[str, Part[str]] = {
        "*": Part(None, wild, repeats=True, skips=1),
        "?": Part(None, wild),
    }
    return tuple(kinds.get(char, Part(char)) for char in glob)


def path_pattern(glob: str) -> tuple[Part[str], ...]:
    """The pattern of a glob over absolute paths, for texts that are plain absolute paths."""
    parts: list[Part[str]] = []
    for name in glob.split("/")[1:]:
        if name == ANY_RUN:
            # Any number of folders: a slash and whatever follows, or neither.
            parts += [Part("/", skips=2), Part(None, _anything, repeats=True, skips=1)]
        else:
            parts += [Part("/"), *text_pattern(name, slashes=False)]
    return tuple(parts)


def sequence_pattern(words: Iterable[Callable[[S], bool] | None]) -> tuple[Part[S], ...]:
    """The pattern of a sequence: a test for each symbol, None for any number of any."""
    return tuple(
        Part(None, _anything, repeats=True, skips=1) if fits is None else Part(None, fits)
        for fits in words
    )


def witnesses(
    patterns: Iterable[tuple[Part[S], ...]],
    symbols: Sequence[S],
    sort: Callable[[tuple[S, ...]], Hashable],
    state: Callable[[tuple[S, ...]], Hashable],
    preferred: Iterable[tuple[S, ...]] = (),
) -> Witnesses[S]:
    """Return a sequence for each combination of patterns that one matches, and sort of it.

    `symbols` are tried everywhere, beside those that the patterns name where
    they do; they stand for all that no pattern names. `sort` is None for a
    sequence to leave out. `state` is what the sorts of all longer sequences
    depend on, None if all of them are to be left out. A `preferred` sequence
    is returned for its combination.
    """
    walk = _Walk(patterns)
    found: dict[Hashable, tuple[S, ...]] = {}
    for sequence in preferred:
        places = walk.start
        for symbol in sequence:
            places = walk.after(places, symbol)
        found.setdefault((walk.matched(places), sort(sequence)), sequence)
    seen = {(walk.start, state(()))}
    pending: list[tuple[_Places, tuple[S, ...]]] = [(walk.start, ())]
    # Grows while it is walked through.
    for places, sequence in pending:
        if sort(sequence) is not None:
            found.setdefault((walk.matched(places), sort(sequence)), sequence)
        for symbol in dict.fromkeys((*symbols, *walk.named(places))):
            longer = (*sequence, symbol)
            reached = (walk.after(places, symbol), state(longer))
            if reached[1] is None or reached in seen:
                continue
            if len(seen) >= MOST:
                return Witnesses(list(found.values()), complete=False)
            seen.add(reached)
            pending.append((reached[0], longer))
    return Witnesses(list(found.values()), complete=True)


# Where a sequence may have got to: the number of a pattern, and of a part in it.
_Places = frozenset[tuple[int, int]]


class _Walk(Generic[S]):
    """All patterns at once."""

    def __init__(self, patterns: Iterable[tuple[Part[S], ...]]) -> None:
        self._patterns = list(dict.fromkeys(patterns))
        self.start: _Places = frozenset(
            place for number in range(len(self._patterns)) for place in self._from(number, 0)
        )

    def after(self, places: _Places, symbol: S) -> _Places:
        """Where one more symbol leads."""
        return frozenset(
            place
            for number, at, part in self._live(places)
            if part.takes(symbol)
            for place in self._from(number, at if part.repeats else at + 1)
        )

    def matched(self, places: _Places) -> frozenset[int]:
        """The patterns that what was walked matches."""
        return frozenset(number for number, at in places if at == len(self._patterns[number]))

    def named(self, places: _Places) -> Iterator[S]:
        """The symbols that patterns name here."""
        return (part.only for _, _, part in self._live(places) if part.only is not None)

    def _live(self, places: _Places) -> list[tuple[int, int, Part[S]]]:
        return [
            (number, at, self._patterns[number][at])
            for number, at in sorted(places)
            if at < len(self._patterns[number])
        ]

    def _from(self, number: int, at: int) -> Iterator[tuple[int, int]]:
        """The place itself, and those that leaving out parts leads to."""
        pattern = self._patterns[number]
        yield number, at
        while at < len(pattern) and pattern[at].skips:
            at += pattern[at].skips
            yield number, at


def _anything(symbol: object) -> bool:
    del symbol
    return True


def _no_slash(char: str) -> bool:
    return char != "/"
