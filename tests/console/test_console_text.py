"""Output as plain text: no sequence of a terminal is left, wherever the pieces end."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from jobworker.console.text import PlainText, visible

# What output may be made of, hostile and not.
PARTS = st.sampled_from(
    [
        *("a", "ü", "\u202e", "\n", "\r", "\r\n", "\t", " ", "0", ";", "m", "[", "]", "\\"),
        *("\x1b", "\x1b[31m", "\x1b]52;c;aGk=\x07", "\x1b]8;;x\x1b\\", "\x1bP", "\x9b1m", "\x9d"),
        *("\x07", "\x00", "\x9c", "\x1b(B", "\x1b#8", "\x1bc"),
    ]
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(*pieces: bytes) -> str:
    text = PlainText()
    return "".join([*map(text.take, pieces), text.take(b"", last=True)])


@given(st.lists(PARTS), st.lists(st.integers(0, 200)))
def test_pieces_may_end_anywhere(parts: list[str], cuts: list[int]) -> None:
    data = "".join(parts).encode()
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(ends)]
    assert plain(*pieces) == plain(data)
    assert not CONTROL.search(plain(data))


@given(st.text())
def test_nothing_but_controls_goes(text: str) -> None:
    kept = [char for char in text if not CONTROL.match(char) and char not in "\u061c\u200e\u200f"]
    if "\x1b" not in text and not re.search("[\x80-\x9f]", text):
        left = plain(text.encode(errors="replace"))
        assert all(char in left for char in kept if char != "\r" and char < "\ud800")


@given(st.binary())
def test_any_bytes_are_some_text(data: bytes) -> None:
    assert not CONTROL.search(plain(data))


def test_sequences_of_terminals() -> None:
    assert plain(b"\x1b[1;31mred\x1b[0m") == "red"
    assert plain(b"\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\") == "click"
    assert plain(b"\x1b]52;c;ZXZpbA==\x07") == ""
    assert plain(b"\x1bPq#0;2;0;0;0\x1b\\image") == "image"
    assert plain(b"10%\r20%\r\n") == "10%\n20%\n"
    assert plain(b"a\x08b\x07") == "ab"
    assert plain("\u202eexe.txt".encode()) == "\\u202eexe.txt"


def test_a_sequence_without_an_end_swallows_little() -> None:
    text = PlainText()
    shown = text.take(b"\x1b]52;c;" + b"A" * 3000)
    assert shown == ""
    shown = text.take(b"A" * 10_000)
    assert shown.endswith("A" * 10_000)


def test_names_are_shown_for_what_they_are() -> None:
    assert visible("a\x1b[31mb\n\u202e") == "a\\x1b[31mb\\x0a\\u202e"
    assert visible("Grüße 👋🏽") == "Grüße 👋🏽"
