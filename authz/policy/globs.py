"""Patterns over text and over sequences of texts, in time linear in what they are matched with.

The texts come from clients, so no pattern may make matching slow: every star
settles for the first place where what follows it fits, which suffices, for a
later place could only leave less for the next star.
"""

import re
from collections.abc import Callable, Sequence

ANY_RUN = "**"

TextTest = Callable[[str], bool]
SequenceTest = Callable[[Sequence[str]], bool]


def text_glob(pattern: str) -> TextTest:
    """Return the test for texts that match: `*` is any run of characters, `?` any one.

    There are no other wildcards and no escape; a `*` in a text is matched by `?`.
    """
    if "*" not in pattern and "?" not in pattern:
        return pattern.__eq__
    head, *rest = (_characters(chunk) for chunk in re.split(r"\*+", pattern))
    *middle, tail = rest or [""]
    star = ".*" if rest else ""
    # (?>...) never gives back what it matched; the last star can only end in one place.
    found = "".join(f"(?>.*?{chunk})" for chunk in middle)
    regex = re.compile(f"{head}{found}{star}{tail}", re.DOTALL)
    return lambda text: regex.fullmatch(text) is not None


def _characters(chunk: str) -> str:
    return "".join("." if char == "?" else re.escape(char) for char in chunk)


def sequence_glob(
    patterns: Sequence[str], item: Callable[[str], TextTest] = text_glob
) -> SequenceTest:
    """Return the test for sequences that match, item by item, the patterns; `item` reads each.

    A pattern `**` stands for any number of items of any content, also none.
    """
    chunks: list[list[TextTest]] = [[]]
    for pattern in patterns:
        if pattern == ANY_RUN:
            chunks.append([])
        else:
            chunks[-1].append(item(pattern))
    head, *rest = chunks
    if not rest:
        return lambda texts: len(texts) == len(head) and _fits(head, texts, 0)
    *middle, tail = rest

    def test(texts: Sequence[str]) -> bool:
        end = len(texts) - len(tail)
        if end < len(head) or not _fits(head, texts, 0) or not _fits(tail, texts, end):
            return False
        at = len(head)
        for chunk in middle:
            found = _find(chunk, texts, at, end)
            if found is None:
                return False
            at = found
        return True

    return test


def _fits(chunk: Sequence[TextTest], texts: Sequence[str], start: int) -> bool:
    return all(fits(texts[start + i]) for i, fits in enumerate(chunk))


def _find(chunk: Sequence[TextTest], texts: Sequence[str], start: int, end: int) -> int | None:
    """Return where the first fit of `chunk` within texts[start:end] ends."""
    for at in range(start, end - len(chunk) + 1):
        if _fits(chunk, texts, at):
            return at + len(chunk)
    return None
